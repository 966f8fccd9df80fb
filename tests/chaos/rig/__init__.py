"""What the chaos tests break things with: real relays, traders, viewers, and a look into the journal file.

    relay      the process under test: start, kill -9, SIGSTOP, restart on the same journal and port
    feeder     a protocol-v1 trader, in this process or in one of its own, that keeps what is not acked
    viewer     a raw WebSocket client that resumes, reads slowly or not at all
    ledger     the journal file as SQLite sees it, and the comparisons every test ends with
    waiting    conditions with deadlines; nothing here sleeps for a fixed time and hopes

Nothing here imports `logrelay` or `robo_trader`: the tests look at the programs from outside.
"""
