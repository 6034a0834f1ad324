#!/usr/bin/env bash
# Checks the dependencies in Cargo.lock: licences, sources, bans, and known vulnerabilities. Only the last needs the
# network: the advisories of RustSec are cloned into .venv, or taken from the clone that ONEACTOR_ADVISORY_DB names.
. "$(dirname "$0")/../environment.sh"
install audit scripts/audit/requirements.txt

say "dependencies: licences, sources, bans"
cargo deny --locked --config scripts/audit/deny.toml check licenses sources bans

say "dependencies: known vulnerabilities"
database=${ONEACTOR_ADVISORY_DB:-$venv/advisory-db}
address=https://github.com/RustSec/advisory-db
export GIT_TERMINAL_PROMPT=0
brings() { timeout 120 git "$@" >"$venv/advisory-db.log" 2>&1; } # a mirror may be slow, and a firewall silent
fetch() {
  if [ -d "$database/.git" ]; then
    brings -C "$database" pull --quiet --ff-only
  else
    brings clone --quiet --depth 1 "$address" "$database"
  fi
}
if [ -n "${ONEACTOR_ADVISORY_DB:-}" ] || fetch; then
  cargo audit --db "$database" --no-fetch --deny yanked
else
  tail -n 3 "$venv/advisory-db.log" >&2
  if [ -d "$database/.git" ]; then
    say "WARNING: no new advisories from $address: checking against those of $(git -C "$database" log -1 --format=%cs)"
    cargo audit --db "$database" --no-fetch --deny yanked
  else
    say "WARNING: KNOWN VULNERABILITIES WERE NOT CHECKED: no advisories from $address."
    say "WARNING: run scripts/audit/check.sh where it can be reached, or name a clone of it by ONEACTOR_ADVISORY_DB."
    # Everything else is sound, and a machine without the network must be able to say so.
    [ -z "${ONEACTOR_NEEDS_ADVISORIES:-}" ]
  fi
fi
