# syntax=docker/dockerfile:1
# Two stages: what installs is not in what runs. Every package is a wheel of the lock, checked by its
# hash, so no compiler is needed and none is left. The tag is pinned; put the digest of the image you
# have tested behind it (python:3.11.14-slim-bookworm@sha256:...).
FROM python:3.11.14-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1
RUN python -m venv /opt/taximeter
WORKDIR /src
COPY requirements.lock stack/psycopg.lock ./
RUN /opt/taximeter/bin/pip install --require-hashes --only-binary :all: --no-deps -r requirements.lock \
 && /opt/taximeter/bin/pip install --require-hashes --only-binary :all: --no-deps -r psycopg.lock
COPY pyproject.toml README.md LICENSE ./
COPY pricing pricing
COPY gateway gateway
RUN /opt/taximeter/bin/pip install --no-deps --no-index --no-build-isolation . \
 && /opt/taximeter/bin/pip uninstall --yes setuptools pip \
 && python -m compileall -q /opt/taximeter/lib/python3.11/site-packages/gateway \
      /opt/taximeter/lib/python3.11/site-packages/pricing

FROM python:3.11.14-slim-bookworm
RUN groupadd --gid 10001 taximeter \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin taximeter \
 && install -d -o 10001 -g 10001 /data
COPY --from=build /opt/taximeter /opt/taximeter
ENV PATH=/opt/taximeter/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /data
USER 10001:10001
VOLUME /data
EXPOSE 8080
# Without settings it listens on 127.0.0.1 only: name a file with TAXIMETER_CONFIG, or the address.
ENV TAXIMETER_SERVER__HOST=0.0.0.0
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/readyz', timeout=4)"]
ENTRYPOINT ["taximeter"]
CMD ["serve"]
