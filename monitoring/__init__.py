"""What Grafana and Prometheus watch Headrace with: dashboards as code, checked rules."""
