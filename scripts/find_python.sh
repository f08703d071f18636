# Sourced by start.sh and test.sh: sets $python to a Python that AI Lab runs on, or says what is missing.
# Takes $root and $environment; the Python of an environment that is there already comes first.

too_old=
for python in "$root/$environment/bin/python" python3.14 python3.13 python3.12 python3.11 python3 python; do
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
  case $version in
    3.1[1-9] | 3.[2-9][0-9] | [4-9].*) return 0 ;;
    *) too_old=${too_old:-$version} ;;
  esac
done
if [ -n "$too_old" ]; then
  problem="Python $too_old is too old: AI Lab needs Python 3.11 or newer."
else
  problem="No Python was found: AI Lab needs Python 3.11 or newer."
fi
echo "error: $problem Install one (Debian/Ubuntu: apt install python3 python3-venv) and run this again." >&2
exit 2
