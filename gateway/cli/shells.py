"""Completion scripts for shells, from verbs and their options."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

FISH_QUOTE = "\\'"


@dataclass(frozen=True, slots=True)
class Option:
    """An option, or a positional argument (without `flags`). `kind`: flag, value, file or model."""

    flags: tuple[str, ...]
    what: str
    kind: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb with its options."""

    name: str
    what: str
    options: tuple[Option, ...]

    @property
    def words(self) -> list[str]:
        """All that may stand after it: flags, and the choices of positional arguments."""
        listed = [option.flags or option.choices for option in self.options]
        return [word for words in listed for word in words]

    @property
    def takes_files(self) -> bool:
        """Does it have a positional argument that is a file?"""
        return any(option.kind == "file" and not option.flags for option in self.options)


def _after(verbs: Sequence[Verb], kind: str) -> str:
    """Patterns `verb flag` of a case statement, for the flags that a value of this kind follows."""
    found = (
        f'"{verb.name} {flag}"'
        for verb in verbs
        for option in verb.options
        for flag in option.flags
        if option.kind == kind and not option.choices
    )
    return "|".join(found) or '""'


def _chosen(verbs: Sequence[Verb]) -> Iterator[tuple[str, str]]:
    """Patterns and choices of the flags that have some."""
    for verb in verbs:
        for option in verb.options:
            if option.flags and option.choices:
                yield "|".join(f'"{verb.name} {flag}"' for flag in option.flags), " ".join(option.choices)


def bash(verbs: Sequence[Verb]) -> str:
    """The script for bash."""
    chosen = "\n".join(f'    {flags}) words="{words}" ;;' for flags, words in _chosen(verbs))
    own = "\n".join(f'      {verb.name}) words="{" ".join(verb.words)}" ;;' for verb in verbs)
    files = "|".join(verb.name for verb in verbs if verb.takes_files)
    return f"""# bash completion of sluiceway: eval "$(sluiceway completion bash)"
_sluiceway() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} words="" IFS=$' \\t\\n'
  local line verb=${{COMP_WORDS[1]}} prev=${{COMP_WORDS[COMP_CWORD-1]}}
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{" ".join(verb.name for verb in verbs)}" -- "$cur"))
    return
  fi
  case "$verb $prev" in
    {_after(verbs, "file")}) compopt -o default 2>/dev/null; return ;;
    {_after(verbs, "model")})
      while IFS= read -r line; do
        [[ $line == "$cur"* ]] && COMPREPLY+=("$(printf %q "$line")")
      done < <("${{COMP_WORDS[0]}}" completion names -- "${{COMP_WORDS[@]:1}}" 2>/dev/null)
      declare -F __ltrim_colon_completions >/dev/null && __ltrim_colon_completions "$cur"
      return ;;
    {_after(verbs, "value")}) return ;;
{chosen}
    *) case "$verb" in
{own}
    esac ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
  case "$verb" in {files}) [ ${{#COMPREPLY[@]}} -eq 0 ] && compopt -o default 2>/dev/null ;; esac
}}
complete -F _sluiceway sluiceway
"""


def zsh(verbs: Sequence[Verb]) -> str:
    """The script for zsh, to be sourced or to lie in `fpath` as `_sluiceway`."""
    listed = "\n".join(f"    '{verb.name}:{_quoted(verb.what)}'" for verb in verbs)
    chosen = "\n".join(f"    {flags}) compadd -- {words}; return ;;" for flags, words in _chosen(verbs))
    own = "\n".join(
        f"    {verb.name}) compadd -- {' '.join(verb.words)}{'; _files' if verb.takes_files else ''} ;;"
        for verb in verbs
        if verb.words
    )
    return f"""#compdef sluiceway
# zsh completion of sluiceway: eval "$(sluiceway completion zsh)"
_sluiceway() {{
  local -a verbs names
  verbs=(
{listed}
  )
  if (( CURRENT == 2 )); then
    _describe verb verbs
    return
  fi
  case "$words[2] $words[CURRENT-1]" in
    {_after(verbs, "file")}) _files; return ;;
    {_after(verbs, "model")})
      names=(${{(f)"$($words[1] completion names -- $words[2,-1] 2>/dev/null)"}})
      compadd -a names
      return ;;
    {_after(verbs, "value")}) return ;;
{chosen}
  esac
  case "$words[2]" in
{own}
  esac
}}
if [ "$funcstack[1]" = "_sluiceway" ]; then
  _sluiceway "$@"
else
  compdef _sluiceway sluiceway
fi
"""


def fish(verbs: Sequence[Verb]) -> str:
    """The script for fish."""
    lines = ["# fish completion of sluiceway: sluiceway completion fish | source", "complete -c sluiceway -f"]
    for verb in verbs:
        lines.append(
            f"complete -c sluiceway -n __fish_use_subcommand -a {verb.name} -d '{_quoted(verb.what, FISH_QUOTE)}'",
        )
        seen = f"complete -c sluiceway -n '__fish_seen_subcommand_from {verb.name}'"
        lines += [f"{seen} {words}" for option in verb.options if (words := _fish_option(option))]
    return "\n".join(lines) + "\n"


def _fish_option(option: Option) -> str:
    names = [f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.flags]
    takes = {
        "flag": "",
        "file": "-r -F" if option.flags else "-F",
        "model": "-x -a '(sluiceway completion names -- (commandline -opc) 2>/dev/null)'",
        "value": "-x" if option.flags else "",
    }[option.kind]
    chosen = f"-a '{' '.join(option.choices)}'" if option.choices else ""
    what = f"-d '{_quoted(option.what, FISH_QUOTE)}'" if option.flags and option.what else ""
    return " ".join(part for part in (*names, takes, chosen, what) if part)


def _quoted(text: str, quote: str = "'\\''") -> str:
    """A text that can stand between single quotes; `quote` is what a quote itself becomes there."""
    return text.replace("'", quote)


SHELLS: Mapping[str, Callable[[Sequence[Verb]], str]] = {"bash": bash, "zsh": zsh, "fish": fish}
