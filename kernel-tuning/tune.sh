#!/bin/sh
# Compares this machine with a profile of facts.toml, which says why each setting is there. Changes it only by `apply`.
#
#   tune.sh [check [PROFILE]]      what is, and what the profile wants; writes nothing; exit 1 if something falls short
#   tune.sh apply PROFILE [FILE]   prints each change, then makes it; FILE (ringway-undo.conf) keeps what was before
#   tune.sh undo FILE              puts back what FILE holds; then FILE is gone, unless something could not be put back
#   tune.sh print PROFILE          lines for /etc/sysctl.d: what apply sets is gone after a reboot
#
# Profiles: idle, bulk, latency (for check the default). RINGWAY_ROOT, for tests, stands in front of /proc/sys.
set -eu
facts=$(dirname "$0")/facts.toml
proc=${RINGWAY_ROOT:-}/proc/sys

die() {
  echo "tune.sh: $*" >&2
  exit 2
}

path() { # KEY: its file
  echo "$proc/$(echo "$1" | tr . /)"
}

now() { # KEY: its value, with single spaces
  tr -s '[:space:]' ' ' <"$(path "$1")" | sed 's/^ //; s/ $//'
}

# KEY|RULE|VALUE of each sysctl in profile $1, and KEY|refused|WHY of each that no profile sets.
wanted() {
  awk -v profile="$1" -F' = ' '
    /^\[\[/ { kind = $0; next }
    { value = $0; sub(/^[^"]*"/, "", value); sub(/"$/, "", value) }
    $1 == "key" { key = value }
    $1 == "rule" { rule = value }
    kind == "[[sysctl]]" && $1 == profile { print key "|" rule "|" value }
    kind == "[[refused]]" && $1 == "why" { print key "|refused|" value }' "$facts"
}

# Field by field the better of what is ($2) and what is wanted ($3); the rule ($1) says for each what better means.
better() {
  case $2 in '' | *[!0-9\ ]*) return 1 ;; esac
  rules="$1 " wants="$3 " result=
  for is in $2; do
    rule=${rules%% *} want=${wants%% *}
    rules=${rules#* } wants=${wants#* }
    case $rule in
      more) [ "$is" -ge "$want" ] || is=$want ;;
      less) [ "$is" -le "$want" ] || is=$want ;;
      exact) is=$want ;;
      *) return 1 ;;
    esac
    result="$result $is"
  done
  [ -z "$rules" ] && echo "${result# }"
}

# STATE|KEY|IS|BETTER|REMARK for profile $1. States: ok, short, absent, unread, refused.
plan() {
  wanted "$1" | while IFS='|' read -r key rule want; do
    if [ "$rule" = refused ]; then
      echo "refused|$key|||$want"
    elif [ ! -e "$(path "$key")" ]; then
      echo "absent|$key|||this kernel or network namespace has no such setting"
    elif is=$(now "$key") && target=$(better "$rule" "$is" "$want"); then
      [ "$is" = "$target" ] && echo "ok|$key|$is|$target|" || echo "short|$key|$is|$target|"
    else
      echo "unread|$key|||cannot be read, or does not hold what facts.toml expects"
    fi
  done
}

check() { # PROFILE
  plan "$1" | awk -F'|' '
    $1 == "short" { $5 = $3 " -> " $4; short++ }
    $1 == "unread" { short++ }
    $1 == "ok" { $5 = $3 }
    { printf "%-8s %-52s %s\n", $1, $2, $5 }
    END { exit short > 0 }'
}

write() { # KEY VALUE
  [ "$(now "$1")" != "$2" ] || return 0
  echo "$1: $(now "$1") -> $2"
  echo "$2" >"$(path "$1")" && [ "$(now "$1")" = "$2" ] && return
  echo "$1: the kernel did not take it; it holds $(now "$1")" >&2
  return 1
}

write_all() { # reads KEY = VALUE
  failed=0
  while read -r key _ value; do
    write "$key" "$value" || failed=1
  done
  return $failed
}

apply() { # PROFILE FILE
  all=$(plan "$1")
  echo "$all" | awk -F'|' '$1 == "absent" || $1 == "unread" { print "left alone: " $2 ": " $5 }'
  short=$(echo "$all" | grep '^short|') || { echo "nothing falls short of $1"; return; }
  # Never over an older file: that one may hold what the machine had before anybody touched it.
  (set -C && echo "$short" | awk -F'|' '{ print $2 " = " $3 }' >"$2") 2>/dev/null ||
    die "cannot make $2, or it is there already; nothing was changed. \`$0 undo $2\` puts back what it holds and removes it, or name another file: $0 apply $1 FILE"
  echo "undo: $0 undo $2"
  echo "$short" | awk -F'|' '{ print $2 " = " $4 }' | write_all
}

undo() { # FILE
  [ -r "$1" ] || die "cannot read $1"
  keys=$(awk '/^\[\[/ { kind = $0 } kind == "[[sysctl]]" && $1 == "key" { gsub(/"/, "", $3); print $3 }' "$facts")
  while read -r key equals value; do # all of it, before the first write
    case $equals$value in '=' | [!=]* | =*[!0-9\ ]*) die "$1: not a line of an undo file: $key $equals $value" ;; esac
    echo "$keys" | grep -qxF "$key" || die "$1: $key is not among the settings of facts.toml; nothing was changed"
  done <"$1"
  write_all <"$1" && rm -- "$1"
}

profile=${2:-latency}
case ${1:-check} in
  undo) ;;
  *) case $profile in idle | bulk | latency) ;; *) die "no profile $profile: idle, bulk or latency" ;; esac ;;
esac
case ${1:-check}:$# in
  check:[012]) check "$profile" ;;
  apply:[23]) apply "$profile" "${3:-ringway-undo.conf}" ;;
  undo:2) undo "$2" ;;
  print:2) plan "$profile" | awk -F'|' '$1 == "ok" || $1 == "short" { print $2 " = " $4 }' ;;
  *) sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p;}' "$0" >&2 && exit 2 ;;
esac
