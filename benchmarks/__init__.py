"""Programs that measure the service, run by ``./docker-free-run.sh bench [NAME...]``; see docs/performance.md."""
