"""Turns a program's description of itself (--experimental-dump-help) on standard input into a manual page."""

import json
import sys


def text(words):
    """Running text as roff: no line of it is a request, and dashes stay as they are typed."""
    words = words.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join("\\&" + line if line[:1] in ".'" else line for line in words.split("\n"))


def spelling(name):
    return ("--" if name["kind"] == "long" else "-") + name["name"]


def shown(items):
    return [item for item in items or [] if item.get("shouldDisplay", True)]


def is_positional(argument):
    return argument["kind"] == "positional"


def synopsis(path, command):
    arguments = shown(command.get("arguments"))
    parts = [f".B {text(' '.join(path))}"]
    for argument in arguments:
        if is_positional(argument):
            part = f"\\fI{text(argument['valueName'])}\\fR"
        elif argument["isOptional"] or argument["kind"] == "flag":
            continue
        else:
            part = f"\\fB{text(spelling(argument['preferredName']))}\\fR \\fI{text(argument['valueName'])}\\fR"
        parts.append(f"[{part}]" if argument["isOptional"] else part)
    if any(not is_positional(argument) and argument["isOptional"] for argument in arguments):
        parts.append("[\\fIoptions\\fR]")
    return "\n".join(parts)


def entry(argument):
    value = f"\\fI{text(argument.get('valueName', ''))}\\fR"
    if is_positional(argument):
        title = value
    else:
        names = ", ".join(f"\\fB{text(spelling(name))}\\fR" for name in argument["names"])
        title = names if argument["kind"] == "flag" else f"{names} {value}"
    lines = [".TP", title, text(argument.get("abstract", ""))]
    if argument.get("defaultValue"):
        lines.append(f"The default is {text(argument['defaultValue'])}.")
    return "\n".join(lines)


def page(command, date):
    name = command["commandName"]
    subcommands = [one for one in shown(command.get("subcommands")) if one["commandName"] != "help"]
    commands = [([name, one["commandName"]], one) for one in subcommands] or [([name], command)]
    abstract = command["abstract"].rstrip(".")
    lines = [f'.TH {name.upper()} 1 "{date}"', ".SH NAME", f"{text(name)} \\- {text(abstract[0].lower() + abstract[1:])}"]
    lines.append(".SH SYNOPSIS")
    lines.append("\n.br\n".join(synopsis(path, one) for path, one in commands))
    lines += [".SH DESCRIPTION", text(command["abstract"])]
    paragraphs = [one for one in command.get("discussion", "").split("\n\n") if one]
    codes = [one for one in paragraphs if one.startswith("EXIT CODES: ")]
    for paragraph in paragraphs:
        if paragraph not in codes:
            lines += [".PP", text(paragraph)]
    for path, one in commands:
        lines.append(f".SH {text(' '.join(path[1:])).upper()}" if subcommands else ".SH OPTIONS")
        if subcommands:
            lines.append(text(one["abstract"]))
            lines += [part for p in one.get("discussion", "").split("\n\n") if p for part in (".PP", text(p))]
        arguments = shown(one.get("arguments"))
        lines += [entry(argument) for argument in arguments]
    for paragraph in codes:
        lines.append(".SH EXIT STATUS")
        for code in paragraph.removeprefix("EXIT CODES: ").rstrip(".").split("; "):
            number, _, meaning = code.partition(" ")
            lines += [".TP", f".B {number}", text(meaning)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page(json.load(sys.stdin)["command"], sys.argv[1]))
