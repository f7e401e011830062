"""The files with which Prometheus and Grafana watch this server: `antiphon monitoring`. Nothing that serves imports it.

`bundle` puts all files together. `prometheus` is Prometheus' configuration, `dashboard` Grafana's dashboard and
`grafana` the files with which Grafana finds it. The dashboard is made of rows (`traffic_rows`, `latency_rows`,
`engine_rows`, `machine_rows`) of panels (`panels`), whose queries are written with `queries`. Tests check every metric
and label in them against the server's own registry.
`alerts` are Prometheus' rules, made of `burn_rates` and `causes`; `alertmanager` says who gets which alert.
"""
