"""The compose file, .env.example and the Dockerfile, read as Docker would."""

import itertools
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
COMPOSE = CHECKOUT / "docker-compose.yml"
EXAMPLE = CHECKOUT / "deploy" / ".env.example"
PASSWORD = "0123456789abcdef0123456789abcdef"


def interpolated(text: str, variables: Mapping[str, str]) -> str:
    """Compose's `${NAME}`, `${NAME:-default}` and `${NAME:?message}`, nested ones from the inside out."""
    innermost = re.compile(r"\$\{(\w+)(?:(:-|:\?)([^{}]*))?\}")

    def value(match: re.Match[str]) -> str:
        name, operator, word = match.groups()
        if variables.get(name):
            return variables[name]
        if operator == ":?":
            raise KeyError(f"{name} {word}")
        return word if operator == ":-" else ""

    while innermost.search(text):
        text = innermost.sub(value, text)
    return text


def services(**variables: str) -> dict[str, dict[str, Any]]:
    """The services, with variables as in .env filled in."""
    text = interpolated(
        COMPOSE.read_text(), {"POSTGRES_PASSWORD": PASSWORD, "RECO_API_KEYS": PASSWORD} | variables
    )
    found: dict[str, dict[str, Any]] = yaml.safe_load(text)["services"]
    return found


def environment_of(service: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in service.get("environment", {}).items()}


def runs_once(service: Mapping[str, Any]) -> bool:
    return bool(service["restart"] == "no")


def listens_on(service: Mapping[str, Any]) -> str | None:
    """The port inside the container, from the command line, or else from the health check."""
    for words in (service.get("command", []), service.get("healthcheck", {}).get("test", [])):
        for option, value in itertools.pairwise(words):
            if option in ("-p", "--port"):
                return str(value)
    return None


def example_variables() -> dict[str, str]:
    """Every variable that .env.example names, those in comments too."""
    return dict(re.findall(r"^#?([A-Z][A-Z_]+)=(.*)$", EXAMPLE.read_text(), re.MULTILINE))


@dataclass(frozen=True)
class Image:
    """The Dockerfile's instructions, `(keyword, rest)`, with continuation lines joined."""

    instructions: list[tuple[str, str]]

    @classmethod
    def read(cls) -> "Image":
        lines = [line for line in (CHECKOUT / "Dockerfile").read_text().splitlines() if line[:1] != "#"]
        joined = "\n".join(lines).replace("\\\n", " ")
        return cls([(line.split()[0], line.split(None, 1)[1]) for line in joined.splitlines() if line])

    def all(self, keyword: str) -> list[str]:
        return [rest for word, rest in self.instructions if word == keyword]

    @property
    def copies(self) -> list[tuple[list[str], str]]:
        """Sources in the checkout and their destination."""
        words = [shlex.split(rest) for rest in self.all("COPY") if "--from=" not in rest]
        return [(sources, target) for *sources, target in words]

    @property
    def environment(self) -> dict[str, str]:
        pairs = [pair.split("=", 1) for rest in self.all("ENV") for pair in shlex.split(rest)]
        return {name: value for name, value in pairs}  # noqa: C416  # pairs are lists

    @property
    def directories(self) -> list[str]:
        """What the image creates for its user."""
        created = re.findall(r"install -d -o \w+ -g \w+ ([^&]+)", " ".join(self.all("RUN")))
        return [path for group in created for path in group.split()]
