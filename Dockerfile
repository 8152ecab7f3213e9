# The server, and nothing that it doesn't need. docker-compose.yml runs it; alone, with a Redis of its
# own and its data in a volume:
#
#     docker build -t seatws . && docker run --init -p 8001:8001 -v seatws:/srv/seatws/data seatws

ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
COPY requirements.lock /
# Ready-made wheels alone: no compiler, and what is installed is what the lock's hashes name.
RUN python -m venv --without-pip /opt/seatws \
    && pip --python /opt/seatws/bin/python install --no-cache-dir --only-binary :all: \
       --require-hashes -r /requirements.lock
COPY . /srv/seatws
# Compiled here: where it runs, nothing can be written.
RUN python -m compileall -q /srv/seatws

FROM python:${PYTHON}-slim
RUN groupadd --system --gid 10001 seatws \
    && useradd --system --uid 10001 --gid seatws --home-dir /srv/seatws --shell /usr/sbin/nologin seatws \
    && install -d -o seatws -g seatws /srv/seatws/data
COPY --from=build /opt/seatws /opt/seatws
COPY --from=build /srv/seatws /srv/seatws
WORKDIR /srv/seatws
# In a container the network is the container's own. The port is fixed here, because the health check
# and the balancer know it; publish it as another one if need be.
ENV PATH=/opt/seatws/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    SEATWS_SERVER__ADDRESS=0.0.0.0 \
    SEATWS_SERVER__PORT=8001
USER 10001:10001
EXPOSE 8001
# Not urllib, which would ask a proxy of the environment.
HEALTHCHECK --interval=5s --timeout=4s --start-period=15s --retries=3 CMD ["python", "-c", \
    "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8001, timeout=3); c.request('GET', '/health'); raise SystemExit(c.getresponse().status != 200)"]
# The exec form: SIGTERM reaches the server itself, which then drains.
ENTRYPOINT ["python", "run.py"]
