# One image for every part of reco-assets; docker-compose.yml says which command runs where.
ARG PYTHON_VERSION=3.12

FROM python:${PYTHON_VERSION}-slim AS build
WORKDIR /build
# uv installs the locked packages in seconds; pip fetches it, with its hash checked.
COPY requirements-bootstrap.lock ./
RUN python -m pip install --no-cache-dir --disable-pip-version-check --require-hashes --only-binary :all: \
        --target /opt/uv -r requirements-bootstrap.lock
# Before the source, so that a change of code does not install everything again.
COPY requirements-runtime.lock ./
RUN python -m venv --without-pip /opt/reco \
    && /opt/uv/bin/uv pip sync --quiet --no-cache --compile-bytecode --python /opt/reco/bin/python \
        --only-binary :all: --require-hashes requirements-runtime.lock
COPY pyproject.toml README.md dagster.yaml workspace.yaml ./
COPY reco_assets ./reco_assets
RUN /opt/uv/bin/uv pip install --quiet --no-cache --compile-bytecode --python /opt/reco/bin/python \
        --no-deps --no-build-isolation .

FROM python:${PYTHON_VERSION}-slim
# A fixed id, so that files in volumes and backups keep their owner. A new volume takes over the owner
# of the directory it is mounted on: all of them exist here.
RUN groupadd --gid 10001 reco \
    && useradd --uid 10001 --gid reco --create-home --shell /usr/sbin/nologin reco \
    && install -d -o reco -g reco /var/lib/reco /var/lib/reco/dagster /var/lib/reco/storage \
        /var/lib/mlflow /var/lib/mlflow/artifacts
COPY --from=build /opt/reco /opt/reco
COPY deploy/workspace.yaml /etc/reco/workspace.yaml
ENV PATH=/opt/reco/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    RECO_HOME=/var/lib/reco \
    DAGSTER_HOME=/var/lib/reco/dagster \
    DAGSTER_DISABLE_TELEMETRY=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    DO_NOT_TRACK=1 \
    GIT_PYTHON_REFRESH=quiet
USER 10001:10001
WORKDIR /var/lib/reco
CMD ["reco", "--help"]
