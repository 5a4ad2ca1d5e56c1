"""Grafana's dashboards as code: `python -m deploy.boards` writes deploy/grafana/dashboards/*.json."""
