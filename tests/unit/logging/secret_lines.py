"""The table that the redaction is held to: lines that a broker's bot really logs, with secrets and without.

Every secret is made at import from a fixed seed, in the format of the real thing. None was ever valid anywhere, and
none stands in this file, so no scanner for secrets has anything to find here.

A secret line is an event and the texts that must not be left of it; a harmless line is an event that must come out as
it went in. The first half of each list was written before the rules that it tests, the second half after them and
without looking at them.
"""

# ruff: noqa: E501, Q000 - a line of the table is a line that was logged, with the quotes it had

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
