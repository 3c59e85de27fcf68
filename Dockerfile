# syntax=docker/dockerfile:1
# Three small images, one a target: operator, bot, paper-exchange.
# BASE is any Debian with python3 3.11 and CA certificates.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS builder
ARG UV_VERSION=0.13.9
RUN python3 -m pip --version >/dev/null 2>&1 \
    || (apt-get update && apt-get install --yes --no-install-recommends python3-pip)
RUN --mount=type=cache,target=/root/.cache/pip \
    PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore python3 -m pip install "uv==${UV_VERSION}"
ENV UV_PROJECT_ENVIRONMENT=/opt/venv \
    UV_LINK_MODE=copy \
    UV_NO_DEV=1 \
    UV_NO_EDITABLE=1 \
    UV_FROZEN=1 \
    UV_PYTHON_DOWNLOADS=never \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
WORKDIR /build
COPY pyproject.toml uv.lock ./
COPY crds/pyproject.toml crds/
COPY operator/pyproject.toml operator/
COPY bot/pyproject.toml bot/
COPY paper-exchange/pyproject.toml paper-exchange/

# Imports all modules of a package, so that byte code is written for what a start needs and for nothing else: the root
# file system is read-only later, and a start that compiles takes seconds. Not what needs an extra that no image has.
ENV IMPORT_ALL="import importlib, pkgutil, sys; \
p = importlib.import_module(sys.argv[1]); \
[importlib.import_module(m.name) for m in pkgutil.walk_packages(p.__path__, p.__name__ + '.') if not any(part in m.name for part in ('.lab', 'pytest_plugin'))]"

# The dependencies stand in a layer of their own: a change of our code does not install them again.
FROM builder AS operator-venv
RUN --mount=type=cache,target=/root/.cache/uv \
    uv sync --package tradingbot-operator --no-install-workspace \
    # The operator sends raw JSON: the client library's typed API, 70 MB, is never loaded.
    && cd /opt/venv/lib/python3.11/site-packages/kubernetes \
    && find client/api client/models aio/client/api aio/client/models -name '*.py' ! -name __init__.py -delete
COPY crds/src crds/src
COPY operator/src operator/src
RUN --mount=type=cache,target=/root/.cache/uv uv sync --package tradingbot-operator --inexact \
    && /opt/venv/bin/python -c "$IMPORT_ALL" tradingbot_api && /opt/venv/bin/python -c "$IMPORT_ALL" tradingbot_operator

FROM builder AS bot-venv
RUN --mount=type=cache,target=/root/.cache/uv \
    uv sync --package tradingbot --no-install-workspace \
    && rm -r /opt/venv/lib/python3.11/site-packages/Crypto/SelfTest
COPY crds/src crds/src
COPY bot/src bot/src
RUN --mount=type=cache,target=/root/.cache/uv uv sync --package tradingbot --inexact \
    && /opt/venv/bin/python -c "$IMPORT_ALL" tradingbot_api && /opt/venv/bin/python -c "$IMPORT_ALL" tradingbot

FROM builder AS paper-exchange-venv
RUN --mount=type=cache,target=/root/.cache/uv uv sync --package paper-exchange --no-install-workspace
COPY paper-exchange/src paper-exchange/src
RUN --mount=type=cache,target=/root/.cache/uv uv sync --package paper-exchange --inexact \
    && /opt/venv/bin/python -c "$IMPORT_ALL" paper_exchange

FROM ${BASE} AS runtime
# No passwd entry has this id: kopf asks for the user's name.
ENV PATH=/opt/venv/bin:$PATH USER=tradingbot HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
WORKDIR /tmp

FROM runtime AS operator
COPY --from=operator-venv /opt/venv /opt/venv
ENTRYPOINT ["tradingbot-operator"]

FROM runtime AS bot
COPY --from=bot-venv /opt/venv /opt/venv
ENTRYPOINT ["tradingbot"]

FROM runtime AS paper-exchange
COPY --from=paper-exchange-venv /opt/venv /opt/venv
ENTRYPOINT ["paper-exchange"]
