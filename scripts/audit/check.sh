#!/usr/bin/env bash
# Checks the dependencies in Cargo.lock: licences, sources, bans, and known vulnerabilities. Only the check
# for vulnerabilities needs the network: it clones the advisories of RustSec into .venv, or uses the clone
# that ONEACTOR_ADVISORY_DB names.
. "$(dirname "$0")/../environment.sh"
install audit scripts/audit/requirements.txt

say "dependencies: licences, sources, bans"
cargo deny --locked --config scripts/audit/deny.toml check licenses sources bans

say "dependencies: known vulnerabilities"
database=${ONEACTOR_ADVISORY_DB:-$venv/advisory-db}
address=https://github.com/RustSec/advisory-db
export GIT_TERMINAL_PROMPT=0
brings() { timeout 120 git "$@" >"$venv/advisory-db.log" 2>&1; } # a slow mirror or a silent firewall must not block the script
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
    say "WARNING: run scripts/audit/check.sh with a network, or set ONEACTOR_ADVISORY_DB to a clone of it."
    # All other checks have passed, and a machine without a network must be able to pass too.
    [ -z "${ONEACTOR_NEEDS_ADVISORIES:-}" ]
  fi
fi
