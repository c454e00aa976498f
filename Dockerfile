# syntax=docker/dockerfile:1
# Builds both images: `docker build --target sidemount .` (the driver) and `docker build --target juicefs-client .`.
# Everything is linked statically, so that the final stages hold a binary and the CA certificates and nothing else.

FROM --platform=$BUILDPLATFORM golang:1.26-bookworm AS source
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .

FROM source AS sidemount-build
ARG TARGETOS TARGETARCH VERSION=dev
ENV CGO_ENABLED=0
RUN GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /out/ ./cmd/sidemount ./cmd/sidemount-agent

# The JuiceFS engine needs cgo, so this stage runs on the target's own architecture.
FROM golang:1.26-bookworm AS juicefs-build
ARG VERSION=dev
WORKDIR /src
COPY . .
RUN VERSION=$VERSION mount/clients/juicefs/build.sh /out/sidemount-juicefs

FROM gcr.io/distroless/static-debian12:latest AS sidemount
COPY --from=sidemount-build /out/sidemount /out/sidemount-agent /usr/local/bin/
# The node and CSI roles make mounts and need root; the chart runs every other role as non-root.
ENTRYPOINT ["/usr/local/bin/sidemount"]

FROM gcr.io/distroless/static-debian12:nonroot AS juicefs-client
COPY --from=juicefs-build /out/sidemount-juicefs /usr/local/bin/sidemount-juicefs
USER 65534:65534
ENTRYPOINT ["/usr/local/bin/sidemount-juicefs"]
