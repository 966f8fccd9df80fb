"""What the chaos tests break things with: real relays, traders, viewers, and a look into the journal file.

    relay        the process under test: start, kill -9, SIGSTOP, restart on the same journal and port
    feeder       a protocol-v1 trader, in this process or in one of its own, that keeps what is not acked
    real_trader  a trader with the real chain of robo_trader, in a process of its own
    viewer       a raw WebSocket client that resumes, reads slowly or not at all
    ledger       the journal file as SQLite sees it, and the comparisons every test ends with
    scale        how often to do things: in CI, and with CHAOS=full

Nothing here imports `logrelay`, and `robo_trader` is imported in processes of its own only: the tests look at the
programs from outside.
"""
