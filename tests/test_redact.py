"""What is masked as a secret, in which form it may come, and that ordinary words of a laboratory are not."""

import base64
import importlib
import inspect
import json
import pkgutil
import re
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
import yaml

from nclab.config.command import arguments
from nclab.config.place import CONF
from nclab.config.schema import ConfigError
from nclab.system.redact import MASK, _masked, redact, redacted
from nclab.system.token_rules import OF_DETECT_SECRETS

ROOT = Path(__file__).resolve().parents[1]
SECRET = "S3cr3t/of+the?house&9"


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


FORMS = [
    # JSON and other assignments
    ('{"password":"x1","user":"me"}', f'{{"password":"{MASK}","user":"me"}}'),
    ("{'api_key':'x1'}", f"{{'api_key':'{MASK}'}}"),
    ("password:x1", f"password:{MASK}"),
    ("wandb_api_key:x1 seed=1", f"wandb_api_key:{MASK} seed=1"),
    ("password= x1", f"password= {MASK}"),
    ("password => 'x1'", f"password => '{MASK}'"),
    ('{"accessToken":"x1"}', f'{{"accessToken":"{MASK}"}}'),
    ("DB_PASS=x1", f"DB_PASS={MASK}"),
    # options
    ("wandb login --password x1 --host h", f"wandb login --password {MASK} --host h"),
    ("--api-key x1", f"--api-key {MASK}"),
    ('--token "x1 y"', f"--token {MASK}"),
    # headers
    (f"Authorization: Basic {b64('me:x1')}", f"Authorization: Basic {MASK}"),
    (f"sent Basic {b64('me:x1')}, refused", f"sent Basic {MASK}, refused"),
    ("{'Authorization': 'Bearer x1', 'Accept': 'a'}", f"{{'Authorization': 'Bearer {MASK}', 'Accept': 'a'}}"),
    ("authorization: token x1 y", f"authorization: token {MASK}"),
    ("Authorization: x1", f"Authorization: {MASK}"),
    ('Authorization: Digest username="me", response="x1"\nnext', f"Authorization: Digest {MASK}\nnext"),
    ("Cookie: session=x1; id=y\nnext", f"Cookie: {MASK}\nnext"),
    ('{"Set-Cookie":"session=x1"}', f'{{"Set-Cookie":"{MASK}"}}'),
    ("X-Api-Key: x1", f"X-Api-Key: {MASK}"),
    # addresses
    ("https://x1@host/p", f"https://{MASK}@host/p"),
    ("https://me:x1 y@host/p", f"https://{MASK}@host/p"),
    ("https://me:x@1@host/p", f"https://{MASK}@host/p"),
    ("https://me:x/1@host", f"https://{MASK}@host"),
    ("https://a:b@h1,https://c:d@h2", f"https://{MASK}@h1,https://{MASK}@h2"),
    ("postgres://me:x1@[::1]:5432/db", f"postgres://{MASK}@[::1]:5432/db"),
    # values with a space
    ('password="x1 and y"', f'password="{MASK}"'),
    ('{"password": "x1 \\" y"}', f'{{"password": "{MASK}"}}'),
    ("user: me\npassword: x1 and y\nseed: 1", f"user: me\npassword: {MASK}\nseed: 1"),
    # keys
    (f"-----BEGIN RSA PRIVATE KEY-----\n{'A1b2' * 16}\n-----END RSA PRIVATE KEY-----\nnext", f"{MASK}\nnext"),
    (f"-----BEGIN OPENSSH PRIVATE KEY-----\n{'A1b2' * 16}", MASK),
    # encoded
    ("next=https%3A%2F%2Fme%3Ax1%40host", MASK),
    (f"got {quote('password=x1', safe='')} there", f"got {MASK} there"),
    (f"got {b64('password=x1')} there", f"got {MASK} there"),
]


@pytest.mark.parametrize(("text", "masked"), FORMS)
def test_every_form_of_a_secret_is_masked(text, masked):
    assert redact(text) == masked
    assert redact(masked) == masked


TOKENS = [
    "ghp_" + "a1B2" * 9, "github_pat_" + "a1B2" * 20, "glpat-" + "a1B2c" * 4, "hf_" + "aBcD" * 8 + "ef",
    "AKIA" + "A1B2" * 4, "xoxb-1234567890-abcdef", "sk_live_" + "a1B2" * 6, "npm_" + "a1B2" * 9,
    "sk-ant-api03-" + "a1B2" * 8, "AIza" + "a1B2-" * 7, "wandb_v1_" + "a1B2" * 10, "SG." + "a" * 22 + "." + "b" * 43,
    "pypi-AgEIcHlwaS5vcmc" + "a1B2" * 18, "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjMifQ.abc_-123",
    "12345678:" + "a1B2_" * 7, "AC" + "a1b2" * 8, "AccountKey=" + "a1B2" * 22,
    "sk-" + "a1B2" * 5 + "T3BlbkFJ" + "a1B2" * 5, "sq0csp-" + "a" * 43,
]  # fmt: skip


@pytest.mark.parametrize("token", TOKENS, ids=[token[:8] for token in TOKENS])
def test_a_bare_token_of_a_known_prefix_is_masked(token):
    for before, after in (("", ""), ("refused ", ", try again"), ("x=", " seed=1"), ('"', '"'), ("a\n", "\nb")):
        assert redact(f"{before}{token}{after}") == f"{before}{MASK}{after}"
    assert redact(f"got {b64(f'use {token}')}") == f"got {MASK}"


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        quote(SECRET),
        quote(SECRET, safe=""),
        quote_plus(SECRET),
        json.dumps(SECRET)[1:-1],
        *(b64(f"{'u' * n}:{SECRET}:x") for n in range(3)),
        base64.urlsafe_b64encode(SECRET.encode()).decode(),
    ],
)
def test_a_secret_of_the_environment_is_masked_in_every_form(monkeypatch, form):
    monkeypatch.setenv("MY_API_KEY", SECRET)
    said = redact(f"https://host/path?q={form} failed")
    assert MASK in said
    assert said.endswith(" failed")
    left = max((part for part in re.split(re.escape(MASK), said)), key=len)
    assert not any(form[i : i + 8] in left for i in range(2, len(form) - 8))


def texts() -> list[Path]:
    pages = [p for p in (ROOT / "docs").rglob("*.md") if "reliability" not in p.name]
    return [*pages, *CONF.rglob("*.yaml"), ROOT / "README.md", ROOT / "pyproject.toml"]


def test_pages_and_configurations_hold_nothing_that_is_masked():
    """Commands, override words, names of runs, hashes, addresses, tables."""
    lines = [line for file in texts() for line in file.read_text().splitlines()]
    assert len(lines) > 3000
    changed = [line for line in lines if redact(line) != line]
    assert changed == []


def test_stored_runs_hold_nothing_that_is_masked(tiny):
    from nclab.run.execute import train

    folder = train(tiny("epochs=1"))
    for name in ("config.yaml", "events.jsonl", "summary.json", "metrics.csv"):
        text = (folder / name).read_text()
        assert redact(text) == text
    tree = yaml.safe_load((folder / "config.yaml").read_text())
    assert redacted(tree) == tree


@pytest.mark.parametrize(
    "text",
    [
        "digits-mlp5x400-none-e60-s0-3c733b84",
        "see key digits-mlp5x400-adaptive-e200-s3-483b53c2",
        "commit 84e997d41a7a0e6a4a0f7f1c5f5e6a7b8c9d0e1f, sha256:" + "0a" * 32,
        "one forward pass mnist5k-mlp5x400-last2-e10-s0-037fe555",
        "etf=last_k etf.k=1,2,3 seed=range(20) dataset.train_size=1000",
        "tracker.tags=[mine,yours] optimizer.lr=5e-4 metrics.suite=[collapse,spectra]",
        "http://localhost:8080 and me@host",
        "http://localhost:8080/path/a@2x.png",
        "https://x.org: ask me@host",
        "https://x.org:443: ask me@host",
        "Cookie: monster",
        "APCollective operations",
        "ssh://git@github.com/a/b and git@host:path",
        "Basic networks, Basic layers:two",
        "90% of 5%, %s and %20 off",
        "features of the class token: block1.attn",
        "token 3, --tokens 4, --seed 3",
        "0.1234567890123456 1e-300 nan",
        "APPROACHES AN END",
        "block1.ffn_in,block1.ffn_out,block2.attn",
        "aHR0cHM6Ly9ob3N0L3BhdGg=",  # base64 of https://host/path
    ],
)
def test_ordinary_words_stay(text):
    assert redact(text) == text


@pytest.mark.parametrize(
    "part", ["/", "//", "a-", "a.", "--x-", "key-", "a:/", "a://", "a:/b:", "sk-", "api_", "token:'", "%20", "eyJ"]
)
def test_a_long_text_takes_time_in_proportion(part):
    """Quadratic ones took seconds."""
    text = f"token {part * (20_000 // len(part))}"
    began = time.process_time()
    redact(text)
    assert time.process_time() - began < 1


def test_only_short_texts_are_remembered():
    for text in ("one word", "one word " * 200):
        _masked.cache_clear()
        assert redact(text) == text
        assert _masked.cache_info().currsize == (len(text) < 1000)


def test_the_words_of_a_command_are_looked_at_together():
    with pytest.raises(ConfigError, match=rf"no secret .* got --password {re.escape(MASK)} seed=1"):
        arguments(["--password", "x1", "seed=1"])


def test_the_rules_for_tokens_are_those_of_the_detector():
    """Of detect-secrets, all that are not of another kind: see nclab.system.token_rules."""
    plugins = importlib.import_module("detect_secrets.plugins")
    base = importlib.import_module("detect_secrets.plugins.base").RegexBasedDetector
    elsewhere = {"basic_auth", "ip_public", "private_key", "ibm_cloud_iam", "ibm_cos_hmac", "cloudant"}
    theirs = set()
    for module in pkgutil.iter_modules(plugins.__path__):
        if module.name in elsewhere:
            continue
        there = importlib.import_module(f"detect_secrets.plugins.{module.name}")
        for one in vars(there).values():
            if inspect.isclass(one) and issubclass(one, base) and one is not base:
                theirs |= {(module.name, rule.pattern, rule.flags & re.IGNORECASE) for rule in one.denylist}
    of_a_name = {rule for rule in theirs if rule[0] == "softlayer" and rule[1].startswith("(?:(?<=")}
    assert len(theirs) > 25
    assert theirs - of_a_name == set(OF_DETECT_SECRETS)


def test_the_detector_itself_is_not_imported():
    """It takes half a second and brings `requests`. Of all our modules redact alone could want it: imported by itself
    it does without torch, and quickly."""
    sources = [path.read_text() for path in (ROOT / "src").rglob("*.py")]
    assert len(sources) > 100
    assert not any(re.search(r"^\s*(?:import|from) (?:detect_secrets|requests)\b", s, re.MULTILINE) for s in sources)
    code = "import sys, nclab.system.redact; print(sorted({m.partition('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'nclab'" in done.stdout
    assert not {"detect_secrets", "requests", "torch"} & set(re.findall(r"'(\w+)'", done.stdout))
