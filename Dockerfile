# The service in a container that runs as nobody in particular; see docs/how-to/many-machines.md.
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
# What compose.yaml asks for (celery, postgresql, gpu), and what jobs may need. Add generation for pictures of people.
ARG EXTRAS=celery,postgresql,gpu,backbones,explain,graph,hdf5,tables
RUN python -m venv /opt/caudal \
 && /opt/caudal/bin/pip install --no-cache-dir --constraint constraints.txt ".[${EXTRAS}]"

FROM python:3.12-slim
RUN useradd --uid 10001 --create-home caudal \
 && install --directory --owner caudal --mode 0700 /state
COPY --from=build /opt/caudal /opt/caudal
ENV PATH=/opt/caudal/bin:$PATH PYTHONUNBUFFERED=1 CAUDAL_HOME=/state
USER 10001
VOLUME /state
EXPOSE 8741
ENTRYPOINT ["caudal"]
CMD ["serve", "--host", "0.0.0.0"]
