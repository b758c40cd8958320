# clipvip on a GPU machine. torch's wheels bring CUDA, so no CUDA image is needed; the host needs NVIDIA's driver and
# container toolkit.
#
#   docker build --tag clipvip .
#   docker run --rm --gpus all --shm-size 16g --user "$(id -u):$(id -g)" \
#     --volume "$PWD:/data" --volume clipvip-cache:/cache clipvip \
#     clipvip-data caption --shards clips --out captions --model OFA-Sys/ofa-base

FROM python:3.11-slim AS build
WORKDIR /source
COPY constraints.txt .
RUN pip install --no-cache-dir --constraint constraints.txt build
COPY . .
RUN python -m build --wheel --outdir /dist \
 && python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
               print(*project['dependencies'], *project['optional-dependencies']['gpu'], sep='\n')" > /dist/requirements.txt

FROM python:3.11-slim
# torch.compile, which training uses, builds with a C compiler on the machine itself.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
# Files of the hub and of compilers go to /cache, whoever the container runs as.
ENV HOME=/cache \
    USER=clipvip \
    PYTHONUNBUFFERED=1
RUN useradd --no-create-home --home-dir /cache --uid 1000 clipvip \
 && install --directory --mode 1777 /cache \
 && install --directory --owner clipvip --group clipvip /data
# Gigabytes that change only with the list of dependencies, so they have a layer of their own.
COPY --from=build /dist/requirements.txt /source/constraints.txt /opt/clipvip/
RUN pip install --no-cache-dir --requirement /opt/clipvip/requirements.txt --constraint /opt/clipvip/constraints.txt
COPY --from=build /dist/*.whl /opt/clipvip/
RUN wheel=$(echo /opt/clipvip/clipvip-*.whl) \
 && pip install --no-cache-dir "clipvip[gpu] @ file://$wheel" --constraint /opt/clipvip/constraints.txt
USER 1000:1000
WORKDIR /data
CMD ["clipvip-data", "--help"]
