#!/usr/bin/env bash
# Fails on words that CONTRIBUTING.md bans: they hide what is meant. A line that matches a regular expression of
# words-allowed.txt (as PATH:LINE:TEXT) is a false hit.
set -euo pipefail
cd "$(dirname "$0")/../.."

words=(
  told 'hears?' 'heeds?' 'believe[sd]?' 'mend(s|ed|ing)?' anew 'for (good|ever)' 'under way' 'given up' 'made good'
  whoever somebody nobody everybody anybody '(?-i:(?<!there )(is|are) none)' 'is no (snapshot|reason|such)' 'whatever bec[ao]mes?'
  'stands? (on|for|still)' 'lets? go' 'goes on' 'goes(?=:)' 'parted by' 'be it that' 'cannot be meant' 'as it is told'
  '(is|was) said of' 'at rest' survey glance patience
)
pattern="\\b($(IFS='|' && echo "${words[*]}"))\\b"
allowed=tests/lint/words-allowed.txt

mapfile -t files < <(git ls-files -- src tests docs config assets '*.md' '*.toml' Makefile |
  grep -vE '^tests/lint/|\.(svg|cast|png)$|^Cargo\.lock$')

hits() {
  grep -nHIiP -- "$pattern" "${files[@]}" || true
  # The first line of a doc comment says what the item is or does.
  awk '
    FNR == 1 { in_doc = 0 }
    /^[ \t]*\/\/[\/!]/ {
      if (!in_doc && $0 ~ /^[ \t]*\/\/[\/!] (What|Who|Whom|How|It\.|Its|Is it|Are they)([^A-Za-z]|$)/)
        print FILENAME ":" FNR ":" $0
      in_doc = 1
      next
    }
    { in_doc = 0 }
  ' $(printf '%s\n' "${files[@]}" | grep '\.rs$')
}

found=$(hits | grep -vEf <(grep -vE '^(#|$)' "$allowed"; echo '^$') | sort -u -t: -k1,1 -k2,2n || true)
if [ -n "$found" ]; then
  printf '%s\n' "$found" | cut -c -200
  echo "$(printf '%s\n' "$found" | wc -l) lines with words that CONTRIBUTING.md bans" >&2
  exit 1
fi
