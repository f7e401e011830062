"""The files with which Prometheus and Grafana watch this server: `antiphon monitoring`. Nothing that serves imports it.

`alerts` are Prometheus' rules, made of `burn_rates` and `causes`; `alertmanager` says who gets which alert.
"""
