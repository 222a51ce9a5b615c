"""Fifty texts that a source could send to do harm: as paths, SQL, templates, markup, formulas, controls."""

from __future__ import annotations

PATHS = [
    "../../../etc/passwd",
    "..\\..\\windows\\system32",
    "/etc/cron.d/x",
    "C:\\x",
    "file:///etc/passwd",
    "a/../../b",
    "./.git/config",
    "landing/social_services/x",
    "CON",
    "x" * 300 + "/y",
    "~/.ssh/authorized_keys",
    "%2e%2e%2f%2e%2e%2f",
    "year=2024/month=*",
]
SQL = [
    "'; drop table marts.population; --",
    '"; drop schema marts cascade; --',
    "' or '1'='1",
    "x') union select * from read_csv('/etc/passwd') --",
    "$$; copy (select 1) to '/tmp/x'; $$",
    "/* */ -- #",
    "E'\\x27'",
    "\\'; select 1; --",
]
TEMPLATES = [
    "{{ 7 * 7 }}",
    "{% raw %}{{ x }}",
    "{% endraw %}{{ config }}",
    "%s%s%n%x",
    "{0.__class__.__mro__}",
    "${jndi:ldap://127.0.0.1/x}",
    "$(touch x)",
    "`touch x`",
    "#{7*7}",
    "{{ env_var('SOCRATA_APP_TOKEN') }}",
    ":warning: [bold red]x[/]",
]
MARKUP = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "' autofocus onfocus='alert(1)",
    "javascript:alert(1)",
    "<svg/onload=alert(1)>",
    "<!-- --><style>*{display:none}</style>",
    "]]><x/>",
    "&lt;b&gt;&#x3c;b&#x3e;",
    "[x](javascript:alert(1))",
    "| a | b |\n|---|---|",
]
FORMULAS = ["=1+1", "+1+1", "-1+1", "@SUM(A1)", '=HYPERLINK("http://127.0.0.1","x")', "=cmd|' /C calc'!A0"]
"""A spreadsheet must take them for text."""
CONTROLS = [
    "\u202egnp.exe",
    "a\u200bb\u2060c",
    "a\x00b",
    "\x1b[31mred\x1b[0m",
    "a\r\nSet-Cookie: x=1",
    "\ufeffx",
    "e\u0301" * 40,
    "\u2028x",
]
LONG = ["x" * 1_000_000, "\U0001f469\u200d\U0001f469" * 2000]
TEXTS = [*PATHS, *SQL, *TEMPLATES, *MARKUP, *FORMULAS, *CONTROLS, *LONG]
COLUMNS = [
    '"; drop table x; --',
    "../../x",
    "registre' or '1'='1",
    "{{ 1 }}",
    "<b>x</b>",
    "a" * 200,
    "snapshot_id",
    "raw",
    "select",
    "a b\u202e",
]
"""Names of columns that the definition does not have."""
