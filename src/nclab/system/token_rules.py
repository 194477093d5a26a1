"""What tokens look like that services give out: each begins with letters of its own.

The patterns of the first list are those of detect-secrets 1.5.0 (Apache License 2.0), by plug-in. They are written out
here because the package brings `requests` and takes half a second to import; a test holds this list to the package.
Left out are rules that `nclab.system.redact` has in a wider form (addresses, private keys, names of keys), and public
IP addresses, which are no secrets.
"""

import re
from collections.abc import Callable

OF_DETECT_SECRETS = (
    ("artifactory", r'(?:\s|=|:|"|^)AKC[a-zA-Z0-9]{10,}(?:\s|"|$)', 0),
    ("artifactory", r'(?:\s|=|:|"|^)AP[\dABCDEF][a-zA-Z0-9]{8,}(?:\s|"|$)', 0),
    ("aws", r"(?:A3T[A-Z0-9]|ABIA|ACCA|AKIA|ASIA)[0-9A-Z]{16}", 0),
    (
        "aws",
        r"""aws.{0,20}?(?:key|pwd|pw|password|pass|token).{0,20}?[\'\"]([0-9a-zA-Z/+]{40})[\'\"]""",
        re.IGNORECASE,
    ),
    ("azure_storage_key", r"AccountKey=[a-zA-Z0-9+\/=]{88}", 0),
    ("discord", r"[MNO][a-zA-Z\d_-]{23,25}\.[a-zA-Z\d_-]{6}\.[a-zA-Z\d_-]{27}", 0),
    ("github_token", r"(ghp|gho|ghu|ghs|ghr)_[A-Za-z0-9_]{36}", 0),
    ("gitlab_token", r"(glpat|gldt|glft|glsoat|glrt)-[A-Za-z0-9_\-]{20,50}(?!\w)", 0),
    ("gitlab_token", r"GR1348941[A-Za-z0-9_\-]{20,50}(?!\w)", 0),
    ("gitlab_token", r"glcbt-([0-9a-fA-F]{2}_)?[A-Za-z0-9_\-]{20,50}(?!\w)", 0),
    ("gitlab_token", r"glimt-[A-Za-z0-9_\-]{25}(?!\w)", 0),
    ("gitlab_token", r"glptt-[A-Za-z0-9_\-]{40}(?!\w)", 0),
    ("gitlab_token", r"glagent-[A-Za-z0-9_\-]{50,1024}(?!\w)", 0),
    ("gitlab_token", r"gloas-[A-Za-z0-9_\-]{64}(?!\w)", 0),
    ("jwt", r"eyJ[A-Za-z0-9-_=]+\.[A-Za-z0-9-_=]+\.?[A-Za-z0-9-_.+/=]*?", 0),
    ("mailchimp", r"[0-9a-z]{32}-us[0-9]{1,2}", 0),
    ("npm", r"\/\/.+\/:_authToken=\s*((npm_.+)|([A-Fa-f0-9-]{36})).*", 0),
    ("openai", r"sk-[A-Za-z0-9-_]*[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}", 0),
    ("pypi_token", r"pypi-AgEIcHlwaS5vcmc[A-Za-z0-9-_]{70,}", 0),
    ("pypi_token", r"pypi-AgENdGVzdC5weXBpLm9yZw[A-Za-z0-9-_]{70,}", 0),
    ("sendgrid", r"SG\.[a-zA-Z0-9_-]{22}\.[a-zA-Z0-9_-]{43}", 0),
    ("slack", r"xox(?:a|b|p|o|s|r)-(?:\d+-)+[a-z0-9]+", re.IGNORECASE),
    (
        "slack",
        r"https://hooks\.slack\.com/services/T[a-zA-Z0-9_]+/B[a-zA-Z0-9_]+/[a-zA-Z0-9_]+",
        re.IGNORECASE,
    ),
    ("softlayer", r"(?:http|https)://api.softlayer.com/soap/(?:v3|v3.1)/([a-z0-9]{64})", re.IGNORECASE),
    ("square_oauth", r"sq0csp-[0-9A-Za-z\\\-_]{43}", 0),
    ("stripe", r"(?:r|s)k_live_[0-9a-zA-Z]{24}", 0),
    ("telegram_token", r"\d{8,10}:[0-9A-Za-z_-]{35}", 0),
    ("twilio", r"AC[a-z0-9]{32}", 0),
    ("twilio", r"SK[a-z0-9]{32}", 0),
)
# What people who train networks have in their pockets, and detect-secrets does not know.
FURTHER = (
    ("hugging face", r"\b(?:hf|api_org)_[A-Za-z0-9]{30,}", 0),
    ("wandb", r"\bwandb_v\d+_\w{20,}", 0),
    ("github, fine-grained", r"\bgithub_pat_\w{22,}", 0),
    ("google", r"\bAIza[\w-]{35}", 0),
    ("anthropic, openai", r"\bsk-(?:ant|proj|svcacct|admin)-[\w-]{20,}", 0),
    ("npm", r"\bnpm_[A-Za-z0-9]{36}", 0),
)
_REST = r"(?:[\w-]|\.(?=[\w-]))*"  # of a token that goes on where its pattern is satisfied
_NEEDED = ("_authToken", "T3BlbkFJ")  # by patterns whose time is quadratic: they are tried only where it stands


def _rule(name: str, pattern: str, flags: int) -> tuple[str, re.Pattern]:
    """What a text must hold for the rule to be tried, and the rule."""
    if name == "artifactory":  # without a digit it is a word: APCollective
        pattern = pattern.replace("|^)", r"|^)(?=[A-Za-z]*\d)")
    whole = pattern if pattern.endswith("$)") else pattern + _REST
    return next((needed for needed in _NEEDED if needed in pattern), ""), re.compile(whole, flags | re.MULTILINE)


_RULES = tuple(_rule(*rule) for rule in (*OF_DETECT_SECRETS, *FURTHER))
_AROUND = re.compile(r'([\s=:"]?)(.*?)([\s"]?)', re.DOTALL)  # delimiters that some patterns include


def replace_tokens(text: str, mask: str) -> str:
    """The text with every token of a known prefix replaced."""

    def masked(found: re.Match) -> str:
        before, _, after = _AROUND.fullmatch(found[0]).groups()
        return f"{before}{mask}{after}"

    replacement: Callable[[re.Match], str] = masked
    for needed, rule in _RULES:
        if needed in text:
            text = rule.sub(replacement, text)
    return text
