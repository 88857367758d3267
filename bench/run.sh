#!/bin/sh
# Measures authretry beside its peers and writes RESULTS.md and growth.svg, in less than ten minutes.
set -eu
cd "$(dirname "$0")"
exec go run -buildvcs=false . "$@"
