"""The table that the redaction is held to: lines that a broker's bot really logs, with secrets and without.

Every secret is made at import from a fixed seed, in the format of the real thing. None was ever valid anywhere, and
none stands in this file, so no scanner for secrets has anything to find here.

A secret line is an event and the texts that must not be left of it; a harmless line is an event that must come out as
it went in. The first half of each list was written before the rules that it tests, the second half after them and
without looking at them.
"""

# ruff: noqa: E501, Q000, UP031 - a line of the table is a line that was logged, with the quotes it had

from __future__ import annotations

import base64
import hashlib
import json
import string
from datetime import date, datetime
from decimal import Decimal
from random import Random
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

B58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
LOWER = string.ascii_lowercase
UPPER = string.ascii_uppercase
ALNUM = string.ascii_letters + string.digits

_counter = 0


def _rng() -> Random:
    global _counter
    _counter += 1
    return Random(f"logrelay table {_counter}")


def pick(alphabet: str, length: int) -> str:
    """Random text that has a letter and a digit where the alphabet has both."""
    rng = _rng()
    while True:
        text = "".join(rng.choice(alphabet) for _ in range(length))
        if length < 6 or not any(c.isdigit() for c in alphabet):
            return text
        if any(c.isdigit() for c in text) and any(c.isalpha() for c in text + "a" * alphabet.isdigit()):
            return text


def hexa(length: int) -> str:
    return pick("0123456789abcdef", length)


def alnum(length: int) -> str:
    return pick(ALNUM, length)


def up(length: int) -> str:
    return pick(UPPER + string.digits, length)


def low(length: int) -> str:
    return pick(LOWER + string.digits, length)


def digits(length: int) -> str:
    return str(_rng().randrange(10 ** (length - 1), 10**length))


def b64(size: int) -> str:
    return base64.b64encode(_rng().randbytes(size)).decode()


def b64url(size: int) -> str:
    return base64.urlsafe_b64encode(_rng().randbytes(size)).decode().rstrip("=")


def uuid() -> str:
    h = hexa(32)
    return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-a{h[17:20]}-{h[20:]}"


def word() -> str:
    """A password as people make them: a word that can be spoken, some digits."""
    rng = _rng()
    text = "".join(rng.choice("bdfgklmnprst") + rng.choice("aeiou") for _ in range(3))
    return f"{text}{rng.randrange(10, 9999)}"


def spoken() -> str:
    """A password of letters only."""
    rng = _rng()
    return "".join(rng.choice("bdfgklmnprst") + rng.choice("aeiou") for _ in range(4))


def b58(data: bytes) -> str:
    number, out = int.from_bytes(data, "big"), ""
    while number:
        number, rest = divmod(number, 58)
        out = B58[rest] + out
    return out


def wif() -> str:
    body = b"\x80" + _rng().randbytes(32) + b"\x01"
    return b58(body + hashlib.sha256(hashlib.sha256(body).digest()).digest()[:4])


def iban(country: str, length: int) -> str:
    body = digits(length - 4)
    check = 98 - int("".join(str(int(c, 36)) for c in body + country + "00")) % 97
    return f"{country}{check:02d}{body}"


def card(prefix: str, length: int = 16) -> str:
    body = prefix + digits(length - 1 - len(prefix))
    odd = sum(sum(divmod(int(c) * (2 - i % 2), 10)) for i, c in enumerate(reversed(body)))
    return body + str(-odd % 10)


_SEED_WORDS = (
    "abandon ability able about above absent absorb abstract absurd abuse access accident account accuse achieve acid "
    "glass globe gloom glory glove glow glue goat goddess gold good goose gorilla gospel gossip govern gown grab grace "
    "zebra zero zone zoo wrist write wrong yard year yellow you young youth orbit orchard order ordinary organ orient"
).split()


def seed_phrase(count: int) -> str:
    rng = _rng()
    return " ".join(rng.choice(_SEED_WORDS) for _ in range(count))


def jwt() -> str:
    head = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').decode().rstrip("=")
    body = base64.urlsafe_b64encode(json.dumps({"sub": digits(8)}).encode()).decode().rstrip("=")
    return f"{head}.{body}.{b64url(32)}"


def telegram(length: int) -> str:
    return f"{digits(length)}:AA{alnum(33)}"


class SecretLine(NamedTuple):
    event: dict[str, Any]
    secrets: tuple[str, ...]
    environ: dict[str, str] = {}


def _secret(make: Any, *makers: Any, environ: Any = None) -> SecretLine:
    """`make(*values)` builds the event from the values that `makers` generate."""
    values = tuple(maker() for maker in makers)
    event = make(*values)
    return SecretLine(event, values, environ(*values) if environ is not None else {})


def key64() -> str:
    return alnum(64)


def hex64() -> str:
    return hexa(64)


def hex32() -> str:
    return hexa(32)


def b64_32() -> str:
    return b64(32)


def b64_64() -> str:
    return b64(64)


def ib() -> str:
    return "U" + digits(7)


def ib_paper() -> str:
    return "DU" + digits(7)


S = _secret

FIRST_SECRET: list[SecretLine] = [
    # --- exchange headers and signatures, as dicts, pairs and text
    S(lambda k, s: {"event": "http.request", "headers": {"X-MBX-APIKEY": k, "Accept": "*/*"}, "url": f"/api/v3/order?signature={s}"}, key64, hex64),
    S(lambda k: {"event": "user stream started", "listenKey": k}, key64),
    S(lambda k: {"event": f"connecting to wss://stream.binance.com:9443/ws/{k}"}, key64),
    S(lambda k: {"event": 'PUT /api/v3/userDataStream?listenKey=' + k + ' HTTP/1.1" 200 2'}, key64),
    S(lambda k: {"event": "response", "body": '{"listenKey":"' + k + '"}'}, key64),
    S(lambda k: {"event": f"keepalive listenKey {k} ok"}, key64),
    S(lambda k, s: {"event": "bybit.request", "headers": {"X-BAPI-API-KEY": k, "X-BAPI-SIGN": s, "X-BAPI-TIMESTAMP": "1700000000000"}}, lambda: alnum(18), hex64),
    S(lambda s: {"event": f"POST /v5/order/create X-BAPI-SIGN: {s} X-BAPI-RECV-WINDOW: 5000"}, hex64),
    S(lambda s: {"event": f"GET https://api.bybit.com/v2/private/wallet/balance?coin=BTC&timestamp=1700000000000&sign={s}"}, hex64),
    S(lambda k, s: {"event": "gateio", "headers": {"KEY": k, "SIGN": s, "Timestamp": "1700000000"}}, hex32, lambda: hexa(128)),
    S(lambda s: {"event": f"gate.io headers KEY=... SIGN={s}"}, lambda: hexa(128)),
    S(lambda k, s: {"event": "kraken", "headers": [("API-Key", k), ("API-Sign", s), ("User-Agent", "ccxt/4")]}, lambda: b64(42), b64_64),
    S(lambda k, s, p: {"event": "okx.request", "headers": {"OK-ACCESS-KEY": k, "OK-ACCESS-SIGN": s, "OK-ACCESS-PASSPHRASE": p}}, uuid, b64_32, word),
    S(lambda k, p: {"event": f"{{'KC-API-KEY': '{k}', 'KC-API-PASSPHRASE': '{p}', 'KC-API-KEY-VERSION': '2'}}"}, lambda: hexa(24), b64_32),
    S(lambda s: {"event": "coinbase", "headers": {"CB-ACCESS-SIGN": s, "CB-ACCESS-TIMESTAMP": "1700000000"}}, b64_32),
    S(lambda s: {"event": f"bitmex api-signature: {s}"}, hex64),
    S(lambda s: {"event": "bitfinex", "headers": {"bfx-signature": s, "bfx-nonce": "1700000000000"}}, lambda: hexa(96)),
    S(lambda s: {"event": "ws.send", "frame": '{"op":"auth","args":["' + "k" + '",1700000000000,"' + s + '"]}'}, hex64),
    S(lambda k, s: {"event": "ws.send", "frame": {"op": "auth", "args": [k, 1700000000000, s]}}, lambda: alnum(18), hex64),
    S(lambda k, p: {"event": "ws.send", "frame": json.dumps({"op": "login", "args": [{"apiKey": k, "passphrase": p, "timestamp": "1700000000", "sign": b64(32)}]})}, uuid, word),
    S(lambda t: {"event": f"wss://ws-api.kucoin.com/endpoint?token={t}&connectId=7"}, lambda: b64url(96)),
    S(lambda t: {"event": "kraken ws token", "result": {"token": t, "expires": 900}}, lambda: b64(32)),
    # --- brokers
    S(lambda k: {"event": f"alpaca client KeyID {k}"}, lambda: "PK" + up(18)),
    S(lambda k, s: {"event": "alpaca", "headers": {"APCA-API-KEY-ID": k, "APCA-API-SECRET-KEY": s}}, lambda: "AK" + up(18), lambda: alnum(40)),
    S(lambda k, s: {"event": "ws.send", "frame": '{"action": "auth", "key": "' + k + '", "secret": "' + s + '"}'}, lambda: "PK" + up(18), lambda: alnum(40)),
    S(lambda k: {"event": "alpaca.rest", "key_id": k}, lambda: "PK" + up(18)),
    S(lambda p: {"event": f"8=FIX.4.4\x019=112\x0135=A\x0149=DESK\x0156=BROKER\x01553=desk1\x01554={p}\x0110=071\x01"}, word),
    S(lambda p: {"event": f"FIX out: 8=FIX.4.2|35=A|98=0|108=30|553=trader|554={p}|10=128|"}, spoken),
    S(lambda a: {"event": "ib.connected", "account": a}, ib),
    S(lambda a: {"event": f"Position(account='{a}', contract=Stock(conId=265598, symbol='AAPL'), position=100.0, avgCost=187.3)"}, ib_paper),
    S(lambda a: {"event": f"ib_insync.wrapper updatePortfolio for {a}: AAPL 100"}, ib),
    S(lambda a: {"event": "managed accounts", "accounts": [a, "DU" + digits(7)]}, ib),
    S(lambda a: {"event": "alpaca account", "account_number": a, "equity": "100000"}, lambda: "PA3" + up(9)),
    S(lambda t: {"event": "oanda", "headers": {"Authorization": f"Bearer {t}"}}, lambda: hexa(32) + "-" + hexa(32)),
    S(lambda t: {"event": f"oanda token loaded {t}"}, lambda: hexa(32) + "-" + hexa(32)),
    S(lambda k: {"event": f"GET https://api.polygon.io/v2/aggs/ticker/AAPL?adjusted=true&apiKey={k}"}, lambda: alnum(32)),
    S(lambda k: {"event": f"https://finnhub.io/api/v1/quote?symbol=AAPL&token={k}"}, lambda: low(20)),
    S(lambda k: {"event": f"https://www.alphavantage.co/query?function=TIME_SERIES&symbol=IBM&apikey={k}"}, lambda: up(16)),
    # --- clouds and services
    S(lambda s: {"event": f"PUT https://bot.blob.core.windows.net/logs/a.log?sv=2022-11-02&se=2026-01-01&sr=b&sp=w&sig={s}"}, lambda: quote(b64(32), safe='')),
    S(lambda t: {"event": f"discord bot token {t}"}, lambda: "M" + alnum(23) + "." + alnum(6) + "." + alnum(38)),
    S(lambda t: {"event": f"POST https://discord.com/api/v10/webhooks/{digits(18)}/{t} 429"}, lambda: alnum(68)),
    S(lambda t: {"event": "twilio", "sid": t}, lambda: "AC" + hexa(32)),
    S(lambda a, t: {"event": f"https://{a}:{t}@api.twilio.com/2010-04-01/Accounts/{a}/Messages.json"}, lambda: "AC" + hexa(32), hex32),
    S(lambda t: {"event": f"https://api.telegram.org/bot{t}/sendMessage"}, lambda: telegram(6)),
    S(lambda t: {"event": "alerts.telegram", "target": t}, lambda: telegram(7)),
    S(lambda k: {"event": f"sentry_sdk.init(dsn='https://{k}@o{digits(6)}.ingest.sentry.io/{digits(7)}')"}, hex32),
    S(lambda t: {"event": f"posting to https://hooks.slack.com/services/T{up(8)}/B{up(8)}/{t}"}, lambda: alnum(24)),
    S(lambda k: {"event": f"aws credentials AKIA{k} loaded"}, lambda: up(16)),
    S(lambda k: {"event": "rpc", "url": f"https://mainnet.infura.io/v3/{k}"}, hex32),
    S(lambda k: {"event": f"web3 provider https://eth-mainnet.g.alchemy.com/v2/{k} connected"}, lambda: alnum(32)),
    S(lambda t: {"event": f"git clone https://{t}@github.com/desk/bot.git"}, lambda: "ghp_" + alnum(36)),
    S(lambda t: {"event": f"pip install --index-url https://{t}@pypi.example.net/simple"}, lambda: low(32)),
    # --- wallets
    S(lambda k: {"event": "wallet loaded", "private_key": "0x" + k}, hex64),
    S(lambda k: {"event": f"Account.from_key('0x{k}')"}, hex64),
    S(lambda k: {"event": f"loaded private key 0x{k} for hot wallet"}, hex64),
    S(lambda k: {"event": "signer", "pk": "0x" + k}, hex64),
    S(lambda k: {"event": f"importing key {k}"}, wif),
    S(lambda k: {"event": "btc", "note": k}, wif),
    S(lambda k: {"event": f"wallet: {k}"}, lambda: seed_phrase(12)),
    S(lambda k: {"event": "wallet.restore", "words": k.split()}, lambda: seed_phrase(12)),
    S(lambda k: {"event": f"restored from {k}, 3 accounts found"}, lambda: seed_phrase(24)),
    S(lambda k: {"event": "wallet.restore", "mnemonic": k}, lambda: seed_phrase(15)),
    # --- command lines
    S(lambda p: {"event": f"$ curl -u bot:{p} https://broker.example/api"}, word),
    S(lambda p: {"event": f"curl -s --user 'bot:{p}' https://broker.example/api"}, word),
    S(lambda s: {"event": "started", "argv": ["bot", "--api-secret", s, "--live"]}, lambda: alnum(16)),
    S(lambda s: {"event": f"started with ['bot', '--api-secret', '{s}', '--live']"}, spoken),
    S(lambda s: {"event": "spawn", "cmd": ("python", "-m", "bot", "--password", s)}, spoken),
    S(lambda s: {"event": "spawn", "cmd": ["bot", f"--token={s}"]}, lambda: alnum(20)),
    S(lambda s: {"event": f"curl -H 'X-Api-Key: {s}' https://broker.example"}, lambda: low(12)),
    # --- prose
    S(lambda s: {"event": f"API Key: {s}"}, lambda: low(12)),
    S(lambda s: {"event": f"password is: {s}"}, spoken),
    S(lambda s: {"event": f"Incorrect API key provided: {s}. You can find your API key in the console."}, lambda: alnum(20)),
    S(lambda s: {"event": f"my password is {s}"}, word),
    S(lambda s: {"event": f"invalid password '{s}' for user bot"}, spoken),
    S(lambda s: {"event": f"Secret Key = {s}"}, lambda: alnum(16)),
    S(lambda s: {"event": f"logging in with token {s}"}, lambda: alnum(32)),
    S(lambda s: {"event": f"access token is {s}"}, lambda: alnum(24)),
    S(lambda s: {"event": f"your verification code is {s}"}, lambda: digits(6)),
    S(lambda s: {"event": "2fa", "otp": int(s)}, lambda: digits(6)),
    S(lambda s: {"event": f"Passphrase: {s}"}, spoken),
    # --- names
    S(lambda s: {"event": "login", "password": s}, spoken),
    S(lambda s: {"event": "login", "user": "bot", "pass": s}, word),
    S(lambda s: {"event": "oauth", "refresh_token": s}, lambda: alnum(40)),
    S(lambda s: {"event": "oauth", "response": {"access_token": s, "expires_in": 1800, "token_type": "Bearer"}}, lambda: alnum(40)),
    S(lambda s: {"event": "schwab", "body": f"grant_type=refresh_token&refresh_token={s}"}, lambda: alnum(60)),
    S(lambda s: {"event": "login", "auth": ("bot", s)}, spoken),
    S(lambda s: {"event": f"requests.get(url, auth=('bot', '{s}'))"}, spoken),
    S(lambda s: {"event": "config", "config": {"exchange": {"name": "kraken", "secret": s}}}, lambda: alnum(24)),
    S(lambda s: {"event": "session", "cookies": {"sessionid": s}}, lambda: low(32)),
    S(lambda s: {"event": "login ok", "response_headers": {"Set-Cookie": f"sid={s}; Path=/; HttpOnly"}}, lambda: low(32)),
    S(lambda s: {"event": "session", "session": s}, lambda: hexa(40)),
    S(lambda s: {"event": "token", "token": s}, lambda: alnum(40)),
    S(lambda s: {"event": "order.signed", "signature": "0x" + s}, lambda: hexa(130)),
    S(lambda s: {"event": "azure", "conn": f"DefaultEndpointsProtocol=https;AccountName=bot;AccountKey={s};EndpointSuffix=core.windows.net"}, b64_64),
    S(lambda s: {"event": f"client_key={s}"}, lambda: alnum(40)),
    S(lambda s: {"event": "jwt", "note": s}, jwt),
    S(lambda s: {"event": "headers", "raw": f"Authorization: Bearer {s}\r\nAccept: */*".encode()}, lambda: alnum(32)),
    S(lambda s: {"event": f"send: b'POST /v1/orders HTTP/1.1\\r\\nHost: api.example\\r\\nX-Api-Key: {s}\\r\\n\\r\\n'"}, lambda: low(20)),
    # --- known values
    S(lambda s: {"event": f"GET /login?x={s}"}, lambda: quote(alnum(10) + "/+=" + alnum(4), safe=""), environ=lambda s: {"BROKER_SECRET": unquote(s)}),
    S(lambda s: {"event": f"payload {s}"}, lambda: base64.b64encode(f"bot:{word()}{spoken()}".encode()).decode(), environ=lambda s: {"BROKER_PASSWORD": base64.b64decode(s).decode()[4:]}),
    S(lambda s: {"event": f"connecting as bot with {s}"}, lambda: word() + spoken(), environ=lambda s: {"DATABASE_URL": f"postgres://bot:{s}@db/x"}),
    S(lambda s: {"event": f'login("bot", "{s}")'}, lambda: word() + spoken(), environ=lambda s: {"BROKER_PASSWORD": s}),
    # --- exceptions
    S(lambda s: {"event": "x", "exception": f'Traceback (most recent call last):\n  File "/app/bot.py", line 12, in login\n    client.login("bot", password="{s}")\nbroker.AuthError: rejected'}, spoken),
    S(lambda s: {"event": "x", "exception": f"requests.exceptions.HTTPError: 401 Client Error: Unauthorized for url: https://api.example/v1/orders?api_key={s}"}, lambda: low(24)),
    S(lambda s: {"event": f"ccxt.base.errors.AuthenticationError: binance {{\"code\":-2015,\"msg\":\"Invalid API-key\"}} headers={{'X-MBX-APIKEY': '{s}'}}"}, key64),
    S(lambda s: {"event": "x", "exception": f"sqlalchemy.exc.OperationalError: could not connect to postgresql://bot:{s}@db:5432/x"}, word),
    S(lambda s: {"event": "x", "error": ValueError(f"bad credentials: password={s}")}, spoken),
    # --- account numbers
    S(lambda s: {"event": "withdrawal", "iban": s}, lambda: iban("DE", 22)),
    S(lambda s: {"event": f"transfer to {s} requested"}, lambda: iban("ES", 24)),
    S(lambda s: {"event": "card", "card_number": s}, lambda: card("4000")),
    S(lambda s: {"event": f"charged card {s}"}, lambda: card("5100")),
]  # fmt: skip


def H(**event: Any) -> dict[str, Any]:
    return event


_UUID = "b1e6f6a2-7c1d-4f7a-9c8e-3a5b7d9e1f20"
_TX = "0x" + hashlib.sha256(b"a transaction").hexdigest()
_SHA = hashlib.sha256(b"a file").hexdigest()
_ADDRESS = "0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2"
_MINT = "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"
_SOLANA_TX = b58(bytes([200]) + Random(5).randbytes(63))

FIRST_HARMLESS: list[dict[str, Any]] = [
    # --- what was hidden wrongly
    H(event="swap", token_in="WETH", token_out="USDC", amount_in=Decimal("1.5")),
    H(event="swap", token_in=_ADDRESS, token_out=_MINT),
    H(event="pool", tokens=["A", "B"]),
    H(event=f"swap token_in={_ADDRESS} token_out={_MINT} amount=5"),
    H(event="quote", token="USDC"),
    H(event="listing token=USDC price=1.0001"),
    H(event="order", signature="4abc"),
    H(event="market", session="NY"),
    H(event="login auth=ok user=bot"),
    H(event="auth", auth="ok"),
    H(event="pattern", pin=1.2),
    H(event="pin=1.2 bar=hammer"),
    H(event="desk", client_key="desk-1"),
    H(event="client_key=desk-1 route=SMART"),
    H(event="refused", level="warning", at="auth.py:42 login"),
    H(event="late", level="warning", at="session.py:117 on_close"),
    H(event="x", exception='Traceback (most recent call last):\n  File "/app/auth.py", line 12, in login\n    raise AuthError("no")\nbot.auth.AuthError: no'),
    H(event="tokens=['WETH', 'USDC'] fee=0.3"),
    H(event="session=london volume=120000"),
    H(event="session opened", session="asia", session_open="09:00"),
    H(event="llm", tokens=512, tokens_used=12, max_tokens=4096, token_count=7),
    H(event="retrying", session=3),
    # --- orders and fills
    H(event="order.placed", order_id="ord-000123", symbol="AAPL", side="buy", quantity=100, price=Decimal("187.32")),
    H(event="trade.executed", symbol="BTC/USDT", side="sell", qty=0.015, price=64123.5, fee=0.0007, fee_currency="BTC"),
    H(event=f"order {_UUID} filled 100@187.32"),
    H(event="order.filled", client_order_id="x-R4BD3S82e7f2c9d1", order_id=28457910234, status="FILLED"),
    H(event="order.new", clientOrderId="web_8f2b1c9d77ae", orderId="1700000000123456789"),
    H(event="filled AAPL: 100 @ 187.32 fee=0.35"),
    H(event="BUY 0.5 ETH/USDT:USDT @ 3120.55 (limit) id=8a3f"),
    H(event="order rejected: insufficient margin", need=1200.5, have=800.0),
    H(event="cancel", ids=["1001", "1002", "1003"]),
    H(event="option", symbol="AAPL260117C00150000", bid=3.2, ask=3.3),
    H(event="option BTC-27MAR26-60000-C mark=0.0312"),
    H(event="future", symbol="ESH6", exchange="CME", conId=495512563),
    H(event="isin", isin="US0378331005", cusip="037833100", sedol="2046251", figi="BBG000B9XRY4"),
    H(event="execution", execId="0000e0d5.65a1b2c3.01.01", permId=1823742913),
    H(event="order", idempotency_key=_UUID, routing_key="orders.new", partition_key="BTC-USDT", sort_key="2026-01-23"),
    H(event="cache", key="ohlcv:BTCUSDT:1m:1700000000", hit=True),
    H(event="primary key violation: duplicate key value violates unique constraint"),
    H(event="8=FIX.4.4|35=D|49=DESK|56=BROKER|11=ord-12|55=AAPL|54=1|38=100|44=187.32|10=071|"),
    H(event="8=FIX.4.4|35=0|34=554|10=071|"),
    H(event="fills", fills=[{"price": "64123.50", "qty": "0.010", "commission": "0.00001", "commissionAsset": "BTC", "tradeId": 3920184}]),
    # --- balances, positions, risk
    H(event="balance", balances={"USDT": Decimal("1023.55"), "BTC": Decimal("0.51")}, equity=104233.1),
    H(event="account", account="main", account_type="MARGIN", account_balance=100000.0),
    H(event="account=paper cash=100000.00 equity=100523.11"),
    H(event="position", symbol="TSLA", qty=-50, avg_price=244.11, unrealized=-120.5),
    H(event="risk.limit", limit="max_drawdown", value=0.12, threshold=0.1),
    H(event="pnl realised=1234567890.12 unrealised=-44.1 account_equity=1000000"),
    H(event="margin", account_id=1, maintenance=1200.0),
    # --- chains
    H(event="tx.sent", tx_hash=_TX, nonce=42, gas=21000),
    H(event=f"swap confirmed in block 19234567 tx={_TX}"),
    H(event=f"hash {_TX} status=1"),
    H(event="transfer", token=_ADDRESS, to="0x" + "ab" * 20),
    H(event=f"approve {_ADDRESS} for router"),
    H(event="solana.confirmed", signature=_SOLANA_TX, slot=254123987),
    H(event="polymarket", condition_id=_TX, question_id=_TX),
    H(event="selector", function_signature="transfer(address,uint256)"),
    H(event="token0=WETH token1=USDC tick=-201234 liquidity=12345678901234567890"),
    H(event="new pair", base_token="PEPE", quote_token="WETH", token_address=_ADDRESS, token_decimals=18, token_symbol="PEPE"),
    H(event="1000PEPE/USDT funding=0.0001 next=2026-01-23T16:00:00Z"),
    # --- HTTP and websockets
    H(event='HTTP Request: GET https://api.binance.com/api/v3/ticker/price?symbol=BTCUSDT "HTTP/1.1 200 OK"'),
    H(event='https://api.binance.com:443 "GET /api/v3/klines?symbol=BTCUSDT&interval=1m&limit=500 HTTP/1.1" 200 None'),
    H(event="connecting to wss://stream.binance.com:9443/ws/btcusdt@trade"),
    H(event="subscribe", frame='{"method":"SUBSCRIBE","params":["btcusdt@aggTrade","btcusdt@depth20@100ms"],"id":1}'),
    H(event="ws.recv", frame='{"e":"trade","E":1700000000123,"s":"BTCUSDT","t":3920184,"p":"64123.50","q":"0.010","T":1700000000120,"m":true}'),
    H(event="ws.recv", frame='{"arg":{"channel":"tickers","instId":"BTC-USDT"},"data":[{"last":"64123.5","askPx":"64123.6"}]}'),
    H(event="rate limit", used_weight=1180, limit=1200, headers={"X-MBX-USED-WEIGHT-1M": "1180", "Retry-After": "3"}),
    H(event="response", status=200, headers={"Content-Type": "application/json", "ETag": '"33a64df5"', "cf-ray": "84a1b2c3d4e5f607-FRA"}),
    H(event="response", headers={"x-request-id": _UUID, "date": "Fri, 23 Jan 2026 10:00:00 GMT"}),
    H(event="Starting new HTTPS connection (1): api.kraken.com:443"),
    H(event="proxy http://proxy.local:3128 in use"),
    H(event="connected to postgres://bot@db.local:5432/trades"),
    H(event="git remote ssh://git@github.com/desk/bot.git"),
    H(event="listening on ws://0.0.0.0:8765, pid=4242"),
    # --- messages about secrets that hold none
    H(event='ccxt.base.errors.AuthenticationError: binance {"code":-2015,"msg":"Invalid API-key, IP, or permissions for action."}'),
    H(event='binance {"code":-1022,"msg":"Signature for this request is not valid."}'),
    H(event='kraken {"error":["EAPI:Invalid key"]}'),
    H(event='kraken {"error":["EAPI:Invalid signature"]}'),
    H(event="password=None token=None"),
    H(event="password is wrong"),
    H(event="API key is missing; set BINANCE_API_KEY"),
    H(event="token refresh failed: timeout after 3s"),
    H(event="token expired, refreshing"),
    H(event="the session token is valid until 2026-01-24"),
    H(event="Unexpected token: ;"),
    H(event="Unexpected token < in JSON at position 0"),
    H(event="basic authentication failed"),
    H(event="API key permissions: read, trade"),
    H(event="secrets loaded from vault"),
    H(event="key rotation done, 3 keys"),
    H(event="x", has_token=True, password=None, api_key_present=True, token_expires_at="2026-01-24T00:00:00Z", auth_type="hmac"),
    H(event="config", password_file="/run/secrets/db", private_key_path="/etc/bot/key.pem", token_url="https://auth.example/token"),
    # --- traceback source lines, where names stand for values
    H(event="x", exception='Traceback (most recent call last):\n  File "/app/bot.py", line 8, in main\n    client = Client(api_key=api_key, api_secret=self.api_secret)\nValueError: no'),
    H(event="x", exception='  File "/app/x.py", line 8, in f\n    token = self._get_token()\nTimeoutError'),
    H(event="x", exception='  File "/app/x.py", line 8, in f\n    password = os.environ["DB_PASSWORD"]\nKeyError: \'DB_PASSWORD\''),
    H(event="def f(token: str | None = None, password: str) -> None:"),
    # --- programs
    H(event="started", argv=["bot", "--live", "--symbols", "BTC/USDT", "--max-tokens", "5"], pid=4242, version="1.4.2"),
    H(event="spawn", cmd=["python", "-m", "bot", "--token-limit", "500"]),
    H(event="commit", sha="3f786850e387550fdab836ed7e6dc881de23001b", branch="main"),
    H(event=f"image digest sha256:{_SHA}"),
    H(event="trace", trace_id="4bf92f3577b34da6a3ce929d0e0e4736", span_id="00f067aa0ba902b7"),
    H(event="strategy", name="mean_reversion_v2", params={"fast": 12, "slow": 26, "signal": 9}),
    H(event="signal=buy strength=0.8 side=long"),
    H(event="author=bob monkey=3 passed=12 bypass=false compass=N"),
    H(event="tick", at=datetime(2026, 1, 23, 10, 0), day=date(2026, 1, 23)),
    H(event="weather report: the order of the day was sell and then wait for the close of the market in new york"),
    H(event="timestamp=1700000000000 recvWindow=5000 nonce=1700000000000000"),
    H(event="bytes", frame=b'{"e":"trade","s":"BTCUSDT","p":"64123.50"}'),
]  # fmt: skip


SECOND_SECRET: list[SecretLine] = [
    # --- HTTP clients
    S(lambda k, s: {"event": "fetch Request: binance POST https://api.binance.com/api/v3/order RequestHeaders: {'X-MBX-APIKEY': '" + k + "', 'Content-Type': 'application/x-www-form-urlencoded'} RequestBody: timestamp=1700000000000&recvWindow=10000&symbol=BTCUSDT&side=BUY&signature=" + s}, key64, hex64),
    S(lambda s: {"event": f'https://fapi.binance.com:443 "POST /fapi/v1/order?symbol=BTCUSDT&side=SELL&type=MARKET&quantity=0.01&timestamp=1700000000000&signature={s} HTTP/1.1" 200 None'}, hex64),
    S(lambda t: {"event": f'HTTP Request: GET https://api.telegram.org/bot{t}/getUpdates?timeout=10 "HTTP/1.1 409 Conflict"'}, lambda: telegram(10)),
    S(lambda t: {"event": f"header: Set-Cookie: JSESSIONID={t}; Path=/; Secure; HttpOnly"}, lambda: up(32)),
    S(lambda s: {"event": f"reply: 'HTTP/1.1 200 OK\\r\\n' header: x-auth-token: {s}"}, lambda: low(40)),
    S(lambda s: {"event": "aiohttp", "request_info": f"RequestInfo(url=URL('https://api.x.io/v1/orders'), method='GET', headers=<CIMultiDictProxy('Host': 'api.x.io', 'Authorization': 'Bearer {s}', 'Accept': '*/*')>)"}, lambda: alnum(48)),
    S(lambda s: {"event": "httpx", "headers": f"Headers([('host', 'api.x.io'), ('authorization', 'Basic {s}')])"}, lambda: base64.b64encode(f"desk:{spoken()}".encode()).decode()),
    S(lambda s: {"event": "curl", "cmd": f"curl -X POST 'https://api.coinbase.com/api/v3/brokerage/orders' -H 'Authorization: Bearer {s}' -d '{{}}'"}, jwt),
    S(lambda s: {"event": f"Cannot connect to proxy http://desk:{s}@proxy.local:3128"}, word),
    S(lambda s: {"event": "request", "params": {"symbol": "BTCUSDT", "timestamp": 1700000000000, "signature": s}}, hex64),
    S(lambda s: {"event": "request", "query": [("symbol", "BTCUSDT"), ("signature", s)]}, hex64),
    S(lambda s: {"event": "request", "body": f"nonce=1700000000000&ordertype=limit&pair=XBTUSD&otp={s}"}, lambda: digits(6)),
    S(lambda s: {"event": "request", "headers": {b"x-api-key": s.encode()}}, lambda: low(32)),
    S(lambda s: {"event": "curl 7.88 > Proxy-Authorization: Basic " + s}, lambda: base64.b64encode(f"desk:{word()}".encode()).decode()),
    S(lambda s: {"event": f"GET /ws?access_token={s}&v=2 101"}, lambda: b64url(40)),
    # --- other exchanges
    S(lambda k, s: {"event": "gemini", "headers": {"X-GEMINI-APIKEY": k, "X-GEMINI-SIGNATURE": s}}, lambda: "account-" + alnum(20), lambda: hexa(96)),
    S(lambda s: {"event": "bitstamp", "headers": {"X-Auth": f"BITSTAMP {alnum(32)}", "X-Auth-Signature": s, "X-Auth-Nonce": uuid()}}, hex64),
    S(lambda k, s: {"event": "phemex", "headers": {"x-phemex-access-token": k, "x-phemex-request-signature": s}}, uuid, hex64),
    S(lambda k: {"event": "bitmart", "headers": {"X-BM-KEY": k, "X-BM-TIMESTAMP": "1700000000000"}}, lambda: hexa(40)),
    S(lambda s: {"event": "htx", "url": f"https://api.huobi.pro/v1/account/accounts?AccessKeyId={s}&SignatureMethod=HmacSHA256&SignatureVersion=2&Timestamp=2026-01-23T10%3A00%3A00"}, lambda: "-".join([hexa(8), low(10), hexa(8), hexa(5)])),
    S(lambda s: {"event": f"https://api.huobi.pro/v1/order/orders/place?SignatureMethod=HmacSHA256&Signature={s}"}, lambda: quote(b64(32), safe="")),
    S(lambda b: {"event": "ws.send", "frame": json.dumps({"method": "public/auth", "params": {"grant_type": "client_credentials", "client_id": "fo7WAPRm", "client_secret": b}})}, lambda: alnum(43)),
    S(lambda b: {"event": "deribit auth result", "result": {"token_type": "bearer", "scope": "session:bot", "refresh_token": b, "expires_in": 900}}, lambda: digits(13) + "." + alnum(44)),
    S(lambda s: {"event": "bitfinex ws", "frame": json.dumps({"event": "auth", "apiKey": alnum(43), "authSig": s, "authPayload": "AUTH1700000000000", "authNonce": 1700000000000})}, lambda: hexa(96)),
    S(lambda s: {"event": 'send: {"event":"subscribe","subscription":{"name":"ownTrades","token":"' + s + '"}}'}, lambda: b64(32)),
    S(lambda s: {"event": "mexc", "url": f"wss://wbs.mexc.com/ws?listenKey={s}"}, lambda: hexa(64)),
    S(lambda s: {"event": "bitget login", "args": [{"apiKey": "bg_" + hexa(32), "passphrase": s, "timestamp": "1700000000"}]}, spoken),
    S(lambda s: {"event": "crypto.com", "body": {"id": 11, "method": "private/create-order", "api_key": alnum(22), "sig": s, "nonce": 1700000000000}}, hex64),
    S(lambda s: {"event": "hyperliquid agent", "agent_key": "0x" + s}, hex64),
    S(lambda s: {"event": "dydx", "headers": {"DYDX-SIGNATURE": s, "DYDX-PASSPHRASE": "x" + s[:12]}}, lambda: b64(32)),
    S(lambda s: {"event": "upbit", "headers": {"Authorization": f"Bearer {s}"}}, jwt),
    S(lambda s: {"event": f"WOO x-api-signature={s} x-api-timestamp=1700000000000"}, hex64),
    S(lambda s: {"event": "ccxt config", "config": {"apiKey": low(20), "secret": s, "enableRateLimit": True}}, lambda: alnum(40)),
    S(lambda s: {"event": f"binance({{'apiKey': '...', 'secret': '{s}', 'options': {{'defaultType': 'future'}}}})"}, key64),
    # --- other brokers
    S(lambda s: {"event": "schwab.token", "token": {"access_token": s, "refresh_token": b64url(60), "expires_at": 1700001800}}, lambda: "I0." + b64url(60)),
    S(lambda s: {"event": f"td-ameritrade consumer_key={s}@AMER.OAUTHAP"}, lambda: up(32)),
    S(lambda s: {"event": "kite", "headers": {"X-Kite-Version": "3", "Authorization": f"token {low(16)}:{s}"}}, lambda: alnum(32)),
    S(lambda s: {"event": f"kite login enctoken={s}"}, lambda: b64(64)),
    S(lambda s: {"event": "kite session", "data": {"user_id": "AB1234", "public_token": "x", "request_token": s}}, lambda: alnum(32)),
    S(lambda s: {"event": "angelone", "jwtToken": f"Bearer {s}"}, jwt),
    S(lambda s: {"event": "smartapi generateSession", "totp": s}, lambda: digits(6)),
    S(lambda s: {"event": "mt5.initialize", "login": 51234567, "password": s, "server": "Broker-Demo"}, lambda: alnum(9)),
    S(lambda s: {"event": f"MetaTrader5 login(51234567, password='{s}', server='Broker-Demo')"}, lambda: alnum(9)),
    S(lambda s: {"event": "tradier", "headers": {"Authorization": f"Bearer {s}", "Accept": "application/json"}}, lambda: alnum(28)),
    S(lambda s: {"event": f"ibeam: logging in as desk1, IBEAM_PASSWORD={s}"}, spoken),
    S(lambda a: {"event": f"AccountValue(account='{a}', tag='NetLiquidation', value='100234.55', currency='USD', modelCode='')"}, ib),
    S(lambda a: {"event": "cpapi", "url": f"https://localhost:5000/v1/api/portfolio/{a}/positions/0"}, ib),
    S(lambda a: {"event": f"Error 321, reqId 7: Error validating request: Invalid account code '{a}'."}, ib_paper),
    S(lambda a: {"event": "oanda", "accountID": a, "NAV": "100021.33"}, lambda: f"101-004-{digits(7)}-001"),
    S(lambda s: {"event": "saxo", "body": f"grant_type=authorization_code&code={uuid()}&client_secret={s}"}, lambda: hexa(32)),
    S(lambda s: {"event": "robinhood", "payload": {"username": "x@y.example", "password": s, "mfa_code": digits(6), "device_token": uuid()}}, spoken),
    S(lambda s: {"event": "etrade", "oauth_token_secret": s, "oauth_verifier": "AB12C"}, lambda: b64(32)),
    S(lambda s: {"event": f'OAuth realm="",oauth_consumer_key="{hexa(32)}",oauth_signature="{s}",oauth_nonce="7"'}, lambda: quote(b64(20), safe="")),
    S(lambda s: {"event": f"Logon<A> 554={s}", "direction": "out", "raw": f"8=FIXT.1.1\x0135=A\x01554={s}\x01"}, lambda: alnum(12)),
    S(lambda s: {"event": f"<20260123-10:00:00, FIX.4.4:DESK->LMAX, outgoing> (8=FIX.4.4|9=132|35=A|34=1|49=DESK|52=20260123-10:00:00|56=LMXBD|98=0|108=30|141=Y|553=desk|925={s}|10=119|)"}, word),
    # --- services
    S(lambda s: {"event": "alert", "webhook": f"https://discordapp.com/api/webhooks/{digits(18)}/{s}"}, lambda: alnum(68)),
    S(lambda s: {"event": f"pushover user={low(30)} token={s}"}, lambda: low(30)),
    S(lambda s: {"event": "pagerduty", "routing_key": s}, hex32),
    S(lambda s: {"event": "influx", "dsn": "https://db.example/api/v2/write?org=desk&bucket=ticks", "token": s}, lambda: b64(64)),
    S(lambda s: {"event": "influx", "headers": f"Authorization: Token {s}"}, lambda: b64(64)),
    S(lambda s: {"event": f"redis.connect url=redis://default:{s}@cache:6379/0"}, lambda: alnum(24)),
    S(lambda s: {"event": f"mongodb+srv://desk:{s}@cluster0.abcde.mongodb.net/trades?retryWrites=true"}, lambda: alnum(16)),
    S(lambda s: {"event": f"amqps://desk:{s}@mq.example/vhost"}, lambda: b64url(24)),
    S(lambda s: {"event": "odbc", "dsn": f"DRIVER={{ODBC Driver 18 for SQL Server}};SERVER=db;DATABASE=t;UID=desk;PWD={s}"}, word),
    S(lambda s: {"event": f"psycopg2.connect(host='db' user='desk' password={s} dbname='trades')"}, spoken),
    S(lambda s: {"event": "s3", "url": f"https://b.s3.amazonaws.com/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=20260123T100000Z&X-Amz-Signature={s}"}, hex64),
    S(lambda s: {"event": "boto3", "kwargs": {"aws_access_key_id": "AKIA" + up(16), "aws_secret_access_key": s}}, lambda: b64(30)),
    S(lambda s: {"event": "boto3", "aws_session_token": s}, lambda: b64(120)),
    S(lambda s: {"event": "gcp", "credentials": {"type": "service_account", "private_key": f"-----BEGIN PRIVATE KEY-----\n{s}\n-----END PRIVATE KEY-----\n"}}, lambda: b64(48)),
    S(lambda s: {"event": f"SharedAccessKeyName=send;SharedAccessKey={s};EntityPath=ticks"}, lambda: b64(32)),
    S(lambda s: {"event": "smtp", "smtp_pass": s, "smtp_host": "mail.example"}, spoken),
    S(lambda s: {"event": "openai", "error": f"Incorrect API key provided: {s}. You can find your API key at the console."}, lambda: "sk-proj-" + alnum(40)),
    S(lambda s: {"event": f"rpc https://solana-mainnet.g.alchemy.com/v2/{s}"}, lambda: b64url(24)),
    S(lambda s: {"event": "rpc", "endpoint": f"https://mainnet.helius-rpc.com/?api-key={s}"}, uuid),
    S(lambda s: {"event": "rpc", "endpoint": f"wss://late-cool-sky.quiknode.pro/{s}/"}, lambda: hexa(40)),
    S(lambda s: {"event": f"https://rpc.ankr.com/eth/{s}"}, hex64),
    # --- wallets
    S(lambda s: {"event": "solana keypair", "keypair": s}, lambda: b58(_rng().randbytes(64))),
    S(lambda s: {"event": f"xprv imported: {s}"}, lambda: "xprv9s21Z" + "".join(_rng().choice(B58) for _ in range(102))),
    S(lambda s: {"event": "stellar", "seed": s}, lambda: "S" + pick(UPPER + "234567", 55)),
    S(lambda s: {"event": f"PRIVATE_KEY=0x{s}"}, hex64),
    S(lambda s: {"event": f"w3.eth.account.sign_transaction(tx, private_key='{s}')"}, hex64),
    S(lambda s: {"event": f'seed: "{s}"'}, lambda: seed_phrase(12)),
    S(lambda s: {"event": "words", "data": ", ".join(s.split())}, lambda: seed_phrase(18)),
    S(lambda s: {"event": f"wallet import failed for key 0x{s}: bad checksum"}, hex64),
    # --- people and prose
    S(lambda s: {"event": f"The API key {s} is not authorised for trading"}, lambda: alnum(32)),
    S(lambda s: {"event": f"using api_secret '{s}'"}, lambda: alnum(32)),
    S(lambda s: {"event": f"Token: {s}"}, lambda: hexa(40)),
    S(lambda s: {"event": f"Your password was reset to {s}"}, word),
    S(lambda s: {"event": f"login failed for user desk with password {s}"}, word),
    S(lambda s: {"event": f'Wrong passphrase "{s}" given'}, spoken),
    S(lambda s: {"event": f"Client Secret: {s}"}, lambda: b64url(32)),
    S(lambda s: {"event": f"ACCESS KEY = {s}"}, lambda: up(20)),
    S(lambda s: {"event": f"2FA code: {s}"}, lambda: digits(6)),
    S(lambda s: {"event": f"The PIN for the card is {s}"}, lambda: digits(4)),
    S(lambda s: {"event": f"SMS code {s} accepted"}, lambda: digits(6)),
    S(lambda s: {"event": f"session cookie {s} set"}, lambda: low(32)),
    S(lambda s: {"event": f"secret={s}"}, spoken),
    S(lambda s: {"event": f"env: {{'BINANCE_KEY': '{s}', 'PATH': '/usr/bin'}}"}, key64),
    S(lambda s: {"event": f"os.environ: BINANCE_SECRET={s} HOME=/root"}, key64),
    # --- command lines
    S(lambda s: {"event": f"docker run -e API_SECRET={s} bot:latest"}, spoken),
    S(lambda s: {"event": "exec", "argv": ["curl", "-s", "-u", f"desk:{s}", "https://api.example"]}, spoken),
    S(lambda s: {"event": "exec", "argv": ["psql", f"postgresql://desk:{s}@db/t"]}, word),
    S(lambda s: {"event": f"subprocess.CalledProcessError: Command '['bot', '--key', '{s}', '--secret', 'x']' returned non-zero exit status 1."}, lambda: alnum(40)),
    S(lambda s: {"event": f"sshpass -p {s} ssh desk@host"}, word),
    S(lambda s: {"event": f"redis-cli -h cache -a {s} ping"}, lambda: alnum(16)),
    S(lambda s: {"event": f"mysql -u desk -p{s} trades"}, word),
    S(lambda s: {"event": f"wget --user=desk --password={s} https://api.example/file"}, spoken),
    # --- exceptions
    S(lambda s: {"event": "x", "exception": f"aiohttp.client_exceptions.ClientResponseError: 401, message='Unauthorized', url='https://api.bybit.com/v5/order/realtime?api_key=x&sign={s}'"}, hex64),
    S(lambda s: {"event": "x", "exception": f'  File "/app/ws.py", line 40, in run\n    await ws.send(json.dumps({{"action": "auth", "key": KEY, "secret": "{s}"}}))\nConnectionClosed'}, lambda: alnum(40)),
    S(lambda s: {"event": "x", "exception": f"KeyError: 'token {s} not found'"}, lambda: hexa(40)),
    S(lambda s: {"event": "x", "exception": f'alpaca.common.exceptions.APIError: {{"message": "forbidden", "api_key": "{s}"}}'}, lambda: "PK" + up(18)),
    S(lambda s: {"event": "x", "error": RuntimeError(f"telegram.error.InvalidToken: The token `{s}` was rejected by the server.")}, lambda: telegram(10)),
    S(lambda s: {"event": "x", "exception": f"pydantic_core.ValidationError: 1 validation error for Settings\napi_secret\n  String should have at most 10 characters [type=string_too_long, input_value='{s}', input_type=str]"}, lambda: alnum(32)),
    # --- nested, encoded
    S(lambda s: {"event": "deep", "a": [{"b": ({"c": [f"x-api-key: {s}"]},)}]}, lambda: low(32)),
    S(lambda s: {"event": "json in json", "payload": json.dumps({"inner": json.dumps({"inner": json.dumps({"api_secret": s})})})}, spoken),
    S(lambda s: {"event": "bytes", "frame": json.dumps({"op": "auth", "args": ["x", 1, s]}).encode()}, hex64),
    S(lambda s: {"event": "pair", "fields": [{"name": "api_key", "value": s}]}, spoken),
    S(lambda s: {"event": "pair", "json": json.dumps([{"name": "Authorization", "value": f"Bearer {s}"}])}, lambda: alnum(40)),
    S(lambda s: {"event": "url", "url": f"https%3A%2F%2Fapi.example%2F%3Fapi_key%3D{s}%26x%3D1"}, lambda: low(24)),
    S(lambda s: {"event": f"<Credentials><ApiKey>{s}</ApiKey></Credentials>"}, lambda: low(24)),
    # --- known values
    S(lambda s: {"event": f"hmac input {s}"}, lambda: alnum(20).encode().hex(), environ=lambda s: {"API_SECRET": bytes.fromhex(s).decode()}),
    S(lambda s: {"event": f"failed: {s!r} refused"}, lambda: spoken() + spoken(), environ=lambda s: {"IB_PASSWORD": s}),
    S(lambda s: {"event": f"broker {s} unreachable"}, lambda: word() + "x", environ=lambda s: {"BROKER_URL": f"amqp://desk:{s}@mq:5672//"}),
    S(lambda s: {"event": f"x {quote(s)} y"}, lambda: word() + "/" + word(), environ=lambda s: {"DB_PASSWORD": s}),
    S(lambda s: {"event": "hash", "note": [s]}, lambda: spoken() + spoken(), environ=lambda s: {"DSN": f"host=db user=x password={s}"}),
    # --- account numbers
    S(lambda s: {"event": "payout", "to": f"IBAN {' '.join(s[i : i + 4] for i in range(0, len(s), 4))}"}, lambda: iban("FR", 27)),
    S(lambda s: {"event": f"SEPA {s} EUR 1000"}, lambda: iban("IT", 27)),
    S(lambda s: {"event": "deposit", "card": f"{s[:4]} {s[4:8]} {s[8:12]} {s[12:]}"}, lambda: card("4000")),
    S(lambda s: {"event": "tradier.account", "account_number": s}, lambda: "VA" + digits(8)),
    S(lambda s: {"event": "schwab", "accountNumber": int(s)}, lambda: digits(8)),
    S(lambda s: {"event": f"orders for account {s}: 3 open"}, lambda: "DU" + digits(7)),
]  # fmt: skip

SECOND_HARMLESS: list[dict[str, Any]] = [
    # --- orders
    H(event="openOrder: Trade(contract=Stock(conId=265598, symbol='AAPL', exchange='SMART', currency='USD'), order=LimitOrder(orderId=12, clientId=1, permId=1823742913, action='BUY', totalQuantity=100.0, lmtPrice=187.3))"),
    H(event="execDetails Execution(execId='00025b46.63f4a8c1.01.01', time=datetime.datetime(2026, 1, 23, 10, 0), exchange='ISLAND', side='BOT', shares=100.0, price=187.31, cumQty=100.0)"),
    H(event="order", data={"orderId": "7f3a9b2c1d4e5f60", "orderLinkId": "grid-btc-12", "cumExecQty": "0.010", "orderStatus": "PartiallyFilled"}),
    H(event="order", clOrdId="b15a2c9f0e7d4a1c8f6b", ordId="680800019749904384", instId="BTC-USDT-SWAP", sz="1"),
    H(event="kraken order OQCLML-BW3P3-BUCMWZ: buy 1.25 XBTUSD @ limit 37500.0"),
    H(event="coinbase", order={"order_id": "11111111-00000-000000", "client_order_id": _UUID, "product_id": "BTC-USD"}),
    H(event="child order", parent_id="PARENT-20260123-0007", leg="2/3", tag="mr_v2:ESH6"),
    H(event="stop moved AAPL 185.00 -> 186.50 trail=1.50"),
    H(event="bracket", entry=100.0, stop_loss=98.0, take_profit=104.0, oca_group="oca_1700000000_7"),
    H(event="expired GTD order ord-20260122-00017 after 86400s"),
    H(event="rejected: code=201 reason='Order rejected - reason:The contract is not available for trading'"),
    H(event="Warning 2104, reqId -1: Market data farm connection is OK:usfarm"),
    H(event="Error 200, reqId 5: No security definition has been found for the request, contract: Stock(symbol='XXXX')"),
    H(event="fill", exec_id="F-2026-000001", liquidity="maker", commission=Decimal("0.35"), commission_asset="BNB"),
    H(event="signal", name="cross", fast=12, slow=26, signal_line=0.3, sign=-1),
    H(event="sign=+1 conviction=0.8"),
    H(event="allocation passed risk: pass=2 fail=0"),
    H(event="pass", second_pass="ok", first_pass=True, pass_rate=0.97),
    # --- market data
    H(event="candle", o=64000.0, h=64100.5, l=63950.0, c=64050.0, v=123.45, ts=1700000000000),
    H(event="book", bids=[["64123.5", "0.51"], ["64123.4", "1.2"]], asks=[["64123.6", "0.3"]], lastUpdateId=1027024),
    H(event="ticker BTC-PERPETUAL mark=64123.55 index=64120.1 funding_8h=0.00011"),
    H(event="subscribed", channels=["ticker.BTC-PERPETUAL.100ms", "book.ETH-PERPETUAL.none.10.100ms"]),
    H(event="ws.recv", frame='{"topic":"orderbook.50.BTCUSDT","type":"delta","ts":1700000000123,"data":{"s":"BTCUSDT","b":[["64123.5","0.51"]],"u":177400507,"seq":66544703342}}'),
    H(event="ws.recv", frame='[42,{"a":["64123.6","1","1.000"],"b":["64123.5","2","2.000"]},"ticker","XBT/USD"]'),
    H(event="ws.recv", frame='{"success":true,"ret_msg":"","op":"auth","conn_id":"cejreaspqfh3sjdnldmg-p"}'),
    H(event="ws.recv", frame='{"T":"success","msg":"authenticated"}'),
    H(event="ws.recv", frame={"event": "login", "code": "0", "msg": ""}),
    H(event="token list refreshed", tokens=["WETH", "USDC", "DAI"], token_count=3),
    H(event="token metadata", token={"symbol": "USDC", "decimals": 6, "address": _ADDRESS}),
    H(event="pool", token0=_ADDRESS, token1=_ADDRESS, fee=3000, pool_key=f"{_ADDRESS}:3000"),
    H(event=f"bought token {_ADDRESS} for 0.5 ETH"),
    H(event="token WIF pumped 12% in 5m"),
    H(event="new token listed: JUP/USDT"),
    H(event="sell_token=DAI buy_token=WETH sell_amount=1000000000000000000"),
    H(event="leveraged tokens BTC3L, ETH3S delisted"),
    H(event="instrument_token=256265 tradingsymbol=NIFTY26JANFUT exchange=NFO"),
    H(event="ticks", ticks=[{"instrument_token": 738561, "last_price": 2500.5}]),
    H(event="symboltoken=3045 exchange=NSE"),
    H(event="session stats", session="RTH", sessions=["RTH", "ETH"], session_high=5012.25, session_low=4990.0),
    H(event="session 2026-01-23 closed, pnl=123.4"),
    H(event="New York session opens in 5m"),
    H(event="session_id=3 replay=true"),
    H(event="pre_market_session starts", session="pre-market"),
    # --- connections
    H(event="connected to wss://ws.kraken.com/v2"),
    H(event="GET https://api.kraken.com/0/public/Ticker?pair=XBTUSD 200 in 45ms"),
    H(event="retry 3/5 in 2.0s: HTTPSConnectionPool(host='api.binance.com', port=443): Read timed out. (read timeout=10)"),
    H(event="aiohttp.client_exceptions.ClientConnectorError: Cannot connect to host stream.binance.com:9443 ssl:default [Connect call failed ('1.2.3.4', 9443)]"),
    H(event="websockets.exceptions.ConnectionClosedError: received 1006 (abnormal closure); then sent 1011 (internal error) keepalive ping timeout"),
    H(event='HTTP Request: POST https://paper-api.alpaca.markets/v2/orders "HTTP/1.1 422 Unprocessable Entity"'),
    H(event="response headers", headers={"Server": "nginx", "X-Cache": "Miss from cloudfront", "Via": "1.1 8a7f6e5d4c3b2a19.cloudfront.net (CloudFront)", "X-Amz-Cf-Id": "Qz1x-yHk2wL9b3m4n5o6p7q8r9s0t1u2v3w4x5y6z7A8B9C0D1E2F3=="}),
    H(event="headers", headers={"x-mbx-uuid": _UUID, "x-mbx-traceid": "9c1b1e4f7a2d4c5b8e6f", "strict-transport-security": "max-age=31536000"}),
    H(event="dns api.bybit.com -> 13.35.1.2, 13.35.1.3"),
    H(event="TLS handshake ok cipher=TLS_AES_256_GCM_SHA384 cert_sha256=" + _SHA),
    H(event="redis://cache:6379/0 connected"),
    H(event="connecting to amqp://guest@mq:5672/"),
    H(event="POST https://hooks.example/alert -> 204"),
    H(event="auth: ok, permissions=['trade', 'read']"),
    H(event="auth required", auth_method="hmac-sha256", auth=False),
    H(event="Authorization: required"),
    H(event="authentication succeeded in 120 ms"),
    H(event="oauth refreshed, next in 25m", oauth="ok"),
    H(event="otp required; waiting for user", otp=None, otp_required=True),
    H(event="cookie jar has 3 cookies", cookies_enabled=True, cookies=3),
    # --- messages about secrets
    H(event='ccxt.base.errors.AuthenticationError: bybit {"retCode":10003,"retMsg":"API key is invalid.","result":{}}'),
    H(event='okx {"msg":"Invalid Sign","code":"50113"}'),
    H(event='kucoin {"code":"400005","msg":"Invalid KC-API-SIGN"}'),
    H(event='alpaca {"code": 40110000, "message": "request is not authorized"}'),
    H(event="Mandatory parameter 'signature' was not sent, was empty/null, or malformed."),
    H(event="listenKey expired, renewing"),
    H(event="API key expires at 2026-03-01T00:00:00Z", api_key_expires_at="2026-03-01"),
    H(event="api key ****abcd loaded from env"),
    H(event="using key PK...9X2Q"),
    H(event="config", api_key="***", api_secret="[redacted]", password="********"),
    H(event="secret manager unavailable: using environment"),
    H(event="password must be changed every 90 days"),
    H(event="private key file /etc/bot/id_ed25519 has mode 0600"),
    H(event="missing environment variables: API_KEY, API_SECRET"),
    H(event="KeyError: 'api_key'"),
    H(event="TypeError: login() missing 1 required positional argument: 'password'"),
    H(event="jwt expired at 1700000000"),
    H(event="the private key does not match the public key"),
    H(event="signature mismatch: expected 4abc, got 5def"),
    H(event="seed=42 episodes=1000"),
    H(event="random seed 1337", seed=1337),
    # --- exceptions
    H(event="x", exception='Traceback (most recent call last):\n  File "/usr/lib/python3.11/site-packages/ccxt/base/exchange.py", line 560, in fetch\n    response.raise_for_status()\n  File "/app/session.py", line 88, in open\n    self.session = aiohttp.ClientSession(headers=headers, timeout=timeout)\nasyncio.exceptions.TimeoutError'),
    H(event="x", exception='  File "/app/auth.py", line 31, in sign\n    signature = hmac.new(self.secret.encode(), payload.encode(), hashlib.sha256).hexdigest()\nAttributeError: x'),
    H(event="x", exception='  File "/app/token_bucket.py", line 12, in take\n    self.tokens = min(self.capacity, self.tokens + elapsed * self.rate)\nZeroDivisionError'),
    H(event="x", exception='  File "/app/c.py", line 3, in load\n    key = cache_key(symbol, timeframe)\nKeyError'),
    H(event="x", level="error", at="tokens.py:12 take"),
    H(event="x", level="error", at="secret_store.py:120 load"),
    H(event="x", level="error", at="password_reset.py:7 run"),
    H(event="KeyError: 'BTCUSDT'", key="BTCUSDT"),
    # --- systems
    H(event="deploy", image="registry.local/bot@sha256:" + _SHA, git="3f786850e387550fdab836ed7e6dc881de23001b"),
    H(event="checkpoint", file="state-7f3a9b2c1d4e.json", md5="d41d8cd98f00b204e9800998ecf8427e"),
    H(event="request", request_id="req_7f3a9b2c1d4e5f60", correlation_id=_UUID),
    H(event="traceparent 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    H(event="job 01HQZX3V5N8J6K7M2P4R9S0T1W finished in 12.3s"),
    H(event="pod bot-7d9f8b6c5d-x2x7k restarted"),
    H(event="s3 upload", key="backups/2026/01/23/trades.parquet", bucket="desk-data", etag="9bb58f26192e4ba00f01e2e7b136bbd8"),
    H(event="kafka", topic="fills", partition=3, offset=123456789, key="BTCUSDT"),
    H(event="db", query="SELECT key, value FROM settings WHERE user_id = 7", rows=3),
    H(event="feature", feature_key="use_new_router", sort_key="ts", keys=["a", "b"]),
    H(event="mem=512MB cpu=12% fds=128 threads=14"),
    H(event="key=AAPL value=187.32 pin=12"),
    H(event="telegram message sent", chat_id=-1001234567890, message_id=4711),
    H(event="discord alert sent to channel 840764163458986356"),
    H(event="block 19234567 gas=30 gwei base_fee=28.1 tx_count=187"),
    H(event=f"nonce 42 tx {_TX} pending"),
    H(event="order hash", order_hash=_TX, maker=_ADDRESS),
    H(event="storage", slot="0x" + "00" * 31 + "05"),
    H(event="solana", blockhash="EkSnNWid2cvwEVnVx9aBqawnmiCNiDgp3gUdkDPTKN1N", mint=_MINT),
    H(event="ens", owner=_ADDRESS, name="desk.eth"),
    H(event="account equity 100523.11 buying power 201046.22", account_status="ACTIVE"),
    H(event="accounts", accounts=["main", "hedge"], account="hedge"),
    H(event="subaccount=mm-3 account_type=UNIFIED"),
    H(event="pnl report: gross=1234.56 net=1200.01 fees=34.55 trades=120"),
    H(event="card", card="momentum"),
    H(event="code=10002 msg='invalid request, please check your server timestamp or recv_window param'"),
]  # fmt: skip


# Lines whose forms were taken, after all rules, from what users of ccxt, freqtrade, hummingbot and ib_insync show in
# public when they ask for help.
THIRD_SECRET: list[SecretLine] = [
    S(lambda k: {"event": "send: b'POST /tapi/ HTTP/1.1\\r\\nHost: yobit.net\\r\\nConnection: keep-alive\\r\\nKey: %s\\r\\nSign: abc\\r\\n'"%k}, lambda: up(32)),
    S(lambda k: {"event": "send: b'POST /tapi/ HTTP/1.1\\r\\nKey: FAKE\\r\\nSign: %s\\r\\nContent-Type: x\\r\\n'"%k}, lambda: hexa(128)),
    S(lambda a, b, c, d: {"event": "fetch Request: kucoin POST https://api.kucoin.com/api/v1/orders RequestHeaders: {'KC-API-KEY-VERSION': '2', 'KC-API-KEY': '%s', 'KC-API-PASSPHRASE': '%s', 'KC-API-SIGN': '%s', 'KC-API-PARTNER-SIGN': '%s', 'KC-API-PARTNER': 'ccxt'}"%(a,b,c,d)}, lambda: hexa(24), lambda: b64(32), lambda: b64(32), lambda: b64(32)),
    S(lambda a: {"event": "ResponseHeaders: {'Date': 'x', 'Set-Cookie': 'AWSALB=%s; Expires=Wed; Path=/'}"%a}, lambda: b64(90)),
    S(lambda k: {"event": "listen key  %s"%k}, lambda: alnum(64)),
    S(lambda k: {"event": "listen key  %s"%k}, lambda: "-".join(hexa(5) for _ in range(7))),
    S(lambda k: {"event": "account = '%s'"%k}, lambda: "DU" + digits(6)),
    S(lambda k: {"event": "{'type': 'exchange', 'exchange': {'name': 'binance', 'key': '%s', 'secret': 'x'}}"%k}, lambda: alnum(64)),
    S(lambda k: {"event": "freqtrade.configuration: api_server: {'username': 'freqtrader', 'jwt_secret_key': '%s', 'ws_token': 'x'}"%k}, lambda: hexa(64)),
    S(lambda k: {"event": "api_server ws_token %s"%k}, lambda: b64url(19)),
    S(lambda k: {"event": "'telegram': {'enabled': True, 'token': '%s', 'chat_id': '123'}"%k}, lambda: "1234567890:AA"+alnum(33)),
    S(lambda k: {"event": "ERROR: Invalid credentials for key=%s"%k}, lambda: alnum(32)),
    S(lambda k: {"event": "GET https://min-api.cryptocompare.com/data/price?fsym=BTC&api_key=%s"%k}, lambda: hexa(64)),
    S(lambda k: {"event": "https://eodhd.com/api/eod/AAPL.US?api_token=%s&fmt=json"%k}, lambda: hexa(14)+"."+"12345678"),
    S(lambda k: {"event": "GET /v1/marketdata/quotes apikey=%s@AMER.OAUTHAP"%k}, lambda: up(32)),
    S(lambda k: {"event": "Login: desk1\nPassword: %s\nServer: Demo"%k}, lambda: spoken()),
    S(lambda k: {"event": "ParsedURL(scheme='https', username='desk', password='%s')"%k}, lambda: word()),
    S(lambda k: {"event": 'Traceback...\n  File "x.py", line 1, in <module>\n    ib.connect(password="%s")'%k}, lambda: spoken()),
    S(lambda k: {"event": "Settings(api_key=SecretStr('**********'), token='%s')"%k}, lambda: alnum(40)),
    S(lambda k: {"event": "x = dict(secret_key='%s')"%k}, lambda: alnum(40)),
    S(lambda k: {"event": '{"apiKey":"%s","timestamp":1}'%k}, lambda: alnum(20)),
    S(lambda k: {"event": "api-key=%s"%k}, lambda: hexa(32)),
    S(lambda k: {"event": "Using Binance key %s... "%k}, lambda: alnum(64)),
    S(lambda k: {"event": "export ALPACA_KEY=%s"%k}, lambda: "PK"+up(18)),
    S(lambda k: {"event": 'HTTP 403 {"message":"key %s disabled"}'%k}, lambda: alnum(32)),
    S(lambda k: {"event": "User-Agent: x\nX-API-Token: %s\n"%k}, lambda: hexa(20)),
    S(lambda k: {"event": "auth_token: '%s'"%k}, lambda: word()),
    S(lambda k: {"event": "wss://ws.finnhub.io?token=%s"%k}, lambda: alnum(20).lower()),
    S(lambda k: {"event": "wss://api.gemini.com/v1/order/events X-GEMINI-PAYLOAD: eyJ X-GEMINI-SIGNATURE: %s"%k}, lambda: hexa(96)),
    S(lambda k: {"event": "password for 'desk' changed to %s"%k}, lambda: word() + "!"),
    S(lambda k: {"event": "pw=%s"%k}, lambda: word() + "!"),
    S(lambda k: {"event": "passwort: %s"%k}, lambda: word() + "!"),
    S(lambda k: {"event": "user=desk pass=%s"%k}, lambda: word() + "!"),
    S(lambda k: {"event": "{'login': 51234, 'pwd': '%s'}"%k}, lambda: word() + "!"),
    S(lambda k: {"event": "secret key is %s"%k}, lambda: alnum(20)),
    S(lambda k: {"event": "key: %s, secret: x"%k}, lambda: alnum(20)),
    S(lambda k: {"event": "API credentials (%s, x) loaded"%k}, lambda: alnum(64)),
    S(lambda k: {"event": "authenticate(%r, 'x')"%k}, lambda: alnum(64)),
]  # fmt: skip

THIRD_HARMLESS: list[dict[str, Any]] = [
    H(event='freqtrade.freqtradebot - INFO - Found open order for Trade(id=4, pair=EVX/BTC, amount=20.00000000, open_rate=0.00014879, open_since=an hour ago)'),
    H(event="freqtrade.rpc.rpc_manager - INFO - Sending rpc message: {'type': sell, 'exchange': 'Binance', 'pair': 'EVX/BTC', 'gain': 'profit', 'limit': 0.00015076, 'sell_reason': 'sell_signal'}"),
    H(event="freqtrade.exchange.exchange - INFO - API fetch_orders: [{'id': 'OPSHQQ-MCURR-PLCLBE', 'clientOrderId': '0', 'info': {'id': 'OPSHQQ-MCURR-PLCLBE', 'refid': None, 'userref': '0', 'status': 'closed'}}]"),
    H(event="{'XRPBEAR': {'free': 0.0, 'used': 0.0, 'total': 0.0}, 'WIF': {'free': 0.0, 'used': 0.0}, 'TOKEN': {'free': 0.0}, 'KEY': {'free': 12.5, 'used': 0.0}, 'PIN': {'free': 1.0}, 'PASS': {'free': 3}}"),
    H(event='hummingbot.core.event.event_reporter - EVENT_LOG - {"timestamp": 1707759529.0, "order_id": "x-3QreWesySA3UT61132c01b96c06cfa", "trading_pair": "API3-USDT", "trade_fee": {"percent": "0", "percent_token": "USDT", "flat_fees": [{"token": "USDT", "amount": "0.00499392"}]}, "exchange_trade_id": "152235809"}'),
    H(event='resp: Dict[str, Any] = await self._get_gateway_instance().approve_token('),
    H(event='ib_insync.client INFO Connecting to 127.0.0.1:4002 with clientId 30...'),
    H(event="asyncio DEBUG connect <socket.socket fd=8, family=AddressFamily.AF_INET, type=SocketKind.SOCK_STREAM, proto=6, laddr=('0.0.0.0', 0)> to ('127.0.0.1', 4002)"),
    H(event='\'Access-Control-Allow-Methods\': \'GET, HEAD, OPTIONS\', \'Content-Security-Policy\': "default-src \'self\'", Via: \'1.1 5317564e96c9dceb46123f6c.cloudfront.net\''),
    H(event='"etag": "W/\\"2-l9Fw4VUO7kr8CvBlt4zaMCqXZ0w\\"", "x-ratelimit-remaining": "149"'),
    H(event='header: Date header: Content-Type header: Set-Cookie header: Vary header: X-Frame-Options header: CF-RAY'),
    H(event='KEY/USDT buy 100 @ 0.005'),
    H(event='KEYUSDT: price=0.00512 vol=1200000'),
    H(event='PASS/USDT ticker last=0.1 key level 64000 broken'),
    H(event='pair=TOKEN/USDT price=0.02'),
    H(event='support key levels: 61500, 63200, 64850'),
    H(event='key=support level=63200.5'),
    H(event='strategy key reversal detected pin bar at 187.3200'),
    H(event='session high 5012.25 session low 4990.00'),
    H(event='session volume 12345678 contracts'),
    H(event='account value 100234.55 leverage 2.0'),
    H(event='account cash=1002340 margin used=0.35'),
    H(event='account leverage=5 account_mode=hedge'),
    H(event='card 3 of 5'),
    H(event='code 200 from /v2/orders'),
    H(event='status code 429, retry after 3'),
    H(event='error code -2019: Margin is insufficient.'),
    H(event='exit code 137'),
    H(event='signature verification skipped for test net'),
    H(event='token bucket: 12.5 tokens left of 20'),
    H(event='token 0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2 has 18 decimals'),
    H(event='max_tokens=4096 prompt_tokens=1200 completion_tokens=310'),
    H(event='refresh token in 300 s'),
    H(event='api key rotated at 2026-01-23T10:00:00Z'),
    H(event='secret santa rally expected in december'),
    H(event='pass 3/10 complete'),
    H(event='second pass over 1200345 rows'),
    H(event='password policy: 12 characters'),
    H(event='private key loaded from /etc/bot/keys/id_rsa'),
    H(event='order key ESH6-20260123-buy-0001 is a duplicate'),
    H(event='dedupe key = BTCUSDT:buy:1700000000'),
    H(event='cache key: klines_BTCUSDT_1h_1700000000'),
    H(event='routing key fills.binance.btcusdt'),
    H(event='cookie consent not needed'),
    H(event='PIN bar on AAPL 5m'),
    H(event='sid=12 side=BUY'),
    H(event='auth latency 35ms'),
    H(event='authenticated as user 12345'),
    H(event='session started at 1700000000123'),
    H(event='session 7f3a closed'),
    H(event='signal score 0.87 sign changed'),
    H(event='key rate decision at 19:00, expected 4.25%'),
    H(event='account DU balance ok'),
    H(event='tokens per second: 85.3'),
    H(event='key error rate 0.02'),
    H(event='Trade token pair WETH-USDC pool fee 3000'),
    H(event='selected account 2 of 3 (margin)'),
    H(event='public key 04bfcab3f9a3e1 fingerprint ok'),
    H(event='public_key=0x04bfcab3f9a3e1d2c4b5a697887766554433221100ffeeddccbbaa99887766554433'),
    H(event='wallet 0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2 balance 1.5 ETH'),
    H(event='wallet tx 0x%s confirmed' % _SHA),
    H(event='signed tx hash 0x%s sent' % _SHA),
    H(event='signing order 0x%s' % _SHA),
    H(event='owner key hash: %s' % _SHA),
    H(event='Solana wallet 7EcDhSYGxXyscszYEp35KHN8vvw3svAuLKTzXwCFLtV sent 1.2 SOL'),
    H(event='keyboard interrupt, closing 3 positions'),
    H(event='card_id=12 scorecard=0.8'),
    H(event="OrderKey(symbol='AAPL', id=12345678)"),
    H(event='session=<aiohttp.client.ClientSession object at 0x7f3a9b2c1d4e>'),
    H(event='token=<Token USDC at 0x7f3a9b2c1d4e>'),
    H(event='auth=HTTPBasicAuth object at 0x7f3a9b2c1d4e'),
    H(event='MKT session code RTH-20260123'),
    H(event='pin=None otp=None cvv=None'),
]  # fmt: skip


# Lines that were thought of by somebody who had not written the rules.
FOURTH_SECRET: list[SecretLine] = [
    S(lambda k, s: {"event": f"Loaded API key: {k} secret: {s}"}, hex32, lambda: alnum(40)),
    S(lambda k: {"event": "ws.send", "frame": {"method":"LOGIN","params":{"apiKey":k,"signature":"x"}}}, key64),
    S(lambda k: {"event": f"HTTP/1.1 401 Unauthorized; request headers: api-key: {k}, api-expires: 1700000000"}, lambda: alnum(24)),
    S(lambda k: {"event": f"export TELEGRAM_BOT_TOKEN='{k}'"}, lambda: telegram(10)),
    S(lambda k: {"event": f"token={k}&symbol=AAPL"}, lambda: low(20)),
    S(lambda p: {"event": f"jdbc:mysql://db:3306/x?user=bot&password={p}"}, word),
    S(lambda p: {"event": f"snowflake://bot:{p}@acct/db"}, word),
    S(lambda p: {"event": f"ssh bot@host, password {p}"}, word),
    S(lambda p: {"event": f"Enter password: {p}"}, spoken),
    S(lambda p: {"event": f"user/pass: bot/{p}"}, word),
    S(lambda k: {"event": "deribit", "data": {"client_id": "abc", "client_secret": k}}, lambda: alnum(43)),
    S(lambda k: {"event": f"x-api-key {k}"}, lambda: low(40)),
    S(lambda k: {"event": f"Bearer token: {k}"}, lambda: b64url(40)),
    S(lambda k: {"event": f"Cookie: cf_clearance={k}; path=/"}, lambda: b64url(40)),
    S(lambda k: {"event": f"wallet private key (hex): {k}"}, hex64),
    S(lambda k: {"event": f"mnemonic => {k}"}, lambda: seed_phrase(12)),
    S(lambda k: {"event": f"seed phrase is {k}"}, lambda: seed_phrase(24)),
    S(lambda k: {"event": f"AZURE_STORAGE_KEY: {k}"}, b64_64),
    S(lambda k: {"event": "vault", "VAULT_TOKEN": "hvs."+k}, lambda: alnum(24)),
    S(lambda k: {"event": f"grafana glsa_{k}_abcdef12"}, lambda: alnum(32)),
    S(lambda k: {"event": f"signing with secret {k}"}, lambda: alnum(32)),
    S(lambda k: {"event": f"hmac_sha256(key={k!r}, msg=...)"}, lambda: alnum(32)),
    S(lambda k: {"event": "config reloaded", "diff": f"- api_secret: {k}\n+ api_secret: ${{SECRET}}"}, lambda: alnum(32)),
    S(lambda k: {"event": f"[binance] apikey mismatch: got {k}"}, key64),
    S(lambda a: {"event": f"Account {a}: buying power 12000"}, ib),
    S(lambda a: {"event": "flex", "url": f"https://gdcdyn.interactivebrokers.com/Universal/servlet/FlexStatementService.SendRequest?t={a}&q=12345&v=3"}, lambda: digits(24)),
    S(lambda a: {"event": f"SEPA to {a[:4]} {a[4:8]} {a[8:12]} {a[12:16]} {a[16:20]} {a[20:]}"}, lambda: iban("DE",22)),
    S(lambda a: {"event": f"bank account no. {a}"}, lambda: digits(10)),
    S(lambda a: {"event": f"acct #{a} margin call"}, lambda: digits(8)),
    S(lambda k: {"event": f"jupyter http://localhost:8888/?token={k}"}, lambda: hexa(48)),
    S(lambda k: {"event": "params", "args": ["--ib-password", k]}, spoken),
    S(lambda k: {"event": "cli", "argv": "bot --api-key="+k+" --api-secret 'x y'"}, lambda: low(12)),
    S(lambda k: {"event": f"ntfy: https://user:{k}@ntfy.sh/bot"}, lambda: word()),
    S(lambda k: {"event": "dict", "auth": {"user":"bot","token":k}}, lambda: alnum(16)),
    S(lambda k: {"event": f"coinbase key name organizations/x/apiKeys/{k}"}, uuid),
    S(lambda k: {"event": f"BITMEX_API_SECRET {k}"}, lambda: b64url(36)),
    S(lambda k: {"event": "request failed", "kwargs": f"{{'headers': {{'Authorization': 'Bearer {k}'}}}}"}, lambda: alnum(20)),
    S(lambda k: {"event": f"login(username=bot, password={k})"}, spoken),
    S(lambda k: {"event": f"password='{k}' rejected"}, lambda: "correct horse battery"),
    S(lambda k: {"event": f"wss://fstream.binance.com/ws/{k}"}, lambda: low(64)),
    S(lambda k: {"event": f"open wss://fstream.binance.com/stream?streams={k} now"}, lambda: low(64)),
    S(lambda p: {"event": f"Server=db;User Id=sa;Password={p};"}, lambda: "My Pass1"),
    S(lambda p: {"event": f"Server=db;User Id=sa;Password={p};Encrypt=yes"}, lambda: f"{spoken()} {word()}"),
    S(lambda p: {"event": f"PASSWORD:\n{p}"}, word),
    S(lambda k: {"event": f"api_secret -> {k}"}, lambda: alnum(10)),
    S(lambda k: {"event": f"restored {k}"}, lambda: "abandon " * 11 + "about"),
    S(lambda k: {"event": f"seed: {k} loaded"}, lambda: "zoo " * 11 + "wrong"),
    S(lambda k: {"event": f"api_key=<{k}> rejected"}, lambda: alnum(12)),
]  # fmt: skip

FOURTH_HARMLESS: list[dict[str, Any]] = [
    H(event="auth token refreshed in 0.35s, expires in 3600s"),
    H(event="key=ETHUSDT-PERP interval=1m rows=500"),
    H(event="session close 16:00 account pnl=+1234.56 token fees=0.12"),
    H(event="password updated for user bot"),
    H(event="secret sauce strategy v2.1 started"),
    H(event="loaded 12 keys from keyring"),
    H(event="strategy signed off by risk, size=100000"),
    H(event="order 7f3a9b2c1d4e accepted by exchange, key 42"),
    H(event="passing 100 shares to TWAP, pass 2 of 5, passive fill"),
    H(event="account update: USDT wallet 1000234.12 available 900123.00"),
    H(event="ACCOUNT_UPDATE event m=ORDER balances=[USDT: 1000.1]"),
    H(event="session_id=3 seq=12345678"),
    H(event="sign=-1 direction=short"),
    H(event="sign: +1"),
    H(event="pin bar at 187.32, code 1234 bars ago"),
    H(event="token price 0.00001234 for SHIB1000"),
    H(event="token=1INCH price=0.41"),
    H(event="token=USDC.e amount=12.5"),
    H(event="token_id=71321045679252212594626385532706912750332728571942532289631379312455583992563"),
    H(event="polymarket token id 71321045679252212594626385532706912750332728571942532289631379312455583992563"),
    H(event="clob", asset_id="71321045679252212594626385532706912750332728571942532289631379312455583992563"),
    H(event="signature: (float, float) -> float"),
    H(event="auth", auth={"type": "none"}),
    H(event="key", key=("BTCUSDT", "1m")),
    H(event="cache miss key=binance:BTC/USDT:USDT:1h:2026-01-23T10:00:00"),
    H(event="card payment fee 1.2 percent"),
    H(event="account: paper-trading-1"),
    H(event="account=MM_DESK_7 strategy=grid"),
    H(event="using account sub-account-3"),
    H(event="accesskey combo ctrl+k"),
    H(event="Invalid token provided"),
    H(event="API key not found: check settings"),
    H(event="the password was not accepted"),
    H(event="wrong password, 2 attempts left"),
    H(event="no credentials provided, using public endpoints"),
    H(event="credentials: none"),
    H(event="credentials=env"),
    H(event="x", session="2026-01-23"),
    H(event="x", session="RTH"),
    H(event="x", sessions={"london": "08:00-16:30", "ny": "09:30-16:00"}),
    H(event="x", cookies=0),
    H(event="x", secret_count=3, secrets_loaded=True),
    H(event="filled order U12 at 4.5"),
    H(event="bond US912828U816 bid 99.12"),
    H(event="unix 1700000000 seq 4111 2222 3333"),
    H(event="sector codes 4010 4020 4030 5010"),
    H(event="phone home disabled, mail queue empty"),
    H(event="run 4f2c9ab1e2d34c5f8a7b6c5d4e3f2a1b started"),
    H(event="config hash=4f2c9ab1e2d34c5f8a7b6c5d4e3f2a1b"),
    H(event="model checkpoint lstm-4f2c9ab1e2d3.pt key metric sharpe=1.23"),
    H(event="GET /v2/account HTTP/1.1 200"),
    H(event="GET /sapi/v1/account/apiRestrictions 200"),
    H(event="user data stream: listenKey created"),
    H(event="keepalive listen key ok"),
    H(event="websocket auth success, connId 1a2b3c4d"),
    H(event="subscribed", channel="account", token_pair="SOL/USDC"),
    H(event="pair WBTC/WETH token0 reserve 123.4 token1 reserve 5678.9"),
    H(event="exec key=ExecKey(AAPL, 12)"),
    H(event="passed=True password_ok=True"),
    H(event="x", access_token_expires_in=3600),
    H(event="access_token_expires_in=3600"),
    H(event='api_key_permissions=["read"]'),
    H(event="x", api_key_permissions=["read"], token_scopes=["trade"]),
    H(event="refresh_token: renewed"),
    H(event="listenKey: keepalive"),
    H(event="x", listenKey="keepalive", refresh_token="renewed", secret="absent"),
    H(event="secret: absent"),
    H(event="password: (none)"),
    H(event="x", password="(none)", api_secret="not_configured", api_key="<not set>"),
    H(event="api_secret=not_configured"),
    H(event="cookies: 3"),
    H(event="credentials=3"),
    H(event="api_key=<unset>"),
    H(event="api_key=<not set>"),
    H(event="renamed access_token -> refresh_token"),
    H(event="credentials:\nreading the vault"),
    H(event="add " * 11 + "add"),
]  # fmt: skip
