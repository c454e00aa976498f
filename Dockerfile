# syntax=docker/dockerfile:1
# The three images, for amd64 and arm64: docker buildx build --platform linux/amd64,linux/arm64 --target sidemount .
# Targets: sidemount (the driver), juicefs-client (the client and the controller's worker), csi-sidecars. Everything is compiled on the
# builder's own architecture and linked statically, so that the final stages hold programs, CA certificates and a bill of materials.

FROM --platform=$BUILDPLATFORM golang:1.26-bookworm AS source
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN go build -o /usr/local/bin/sbom ./hack/images/sbom

FROM source AS sidemount-build
ARG TARGETOS TARGETARCH VERSION=dev
ENV CGO_ENABLED=0
RUN GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /out/ ./cmd/sidemount ./cmd/sidemount-agent && \
    sbom --name sidemount --version "$VERSION" /out/sidemount /out/sidemount-agent >/sidemount.spdx.json

# The JuiceFS engine needs cgo, and with it the target's C compiler and static libc.
FROM source AS juicefs-build
ARG TARGETOS TARGETARCH VERSION=dev
RUN case $TARGETARCH in amd64) cc=x86-64-linux-gnu ;; arm64) cc=aarch64-linux-gnu ;; *) echo "no C compiler for $TARGETARCH" >&2; exit 1 ;; esac && \
    if [ "$(dpkg --print-architecture)" != "$TARGETARCH" ]; then \
      apt-get update && apt-get install -y --no-install-recommends "gcc-$cc" "libc6-dev-$TARGETARCH-cross"; fi
RUN case $TARGETARCH in amd64) CC=x86_64-linux-gnu-gcc ;; arm64) CC=aarch64-linux-gnu-gcc ;; esac && \
    CC=$CC GOOS=$TARGETOS GOARCH=$TARGETARCH VERSION=$VERSION mount/clients/juicefs/build.sh /out/sidemount-juicefs && \
    sbom --name juicefs-client --version "$VERSION" /out/sidemount-juicefs >/juicefs-client.spdx.json

FROM source AS csi-build
ARG TARGETOS TARGETARCH VERSION=dev
RUN GOOS=$TARGETOS GOARCH=$TARGETARCH BIN=/out CRDS=/crds hack/build-csi.sh && \
    sbom --name csi-sidecars --version "$VERSION" /out/* >/csi-sidecars.spdx.json

FROM gcr.io/distroless/static-debian12:latest AS sidemount
COPY --from=sidemount-build /out/sidemount /out/sidemount-agent /usr/local/bin/
COPY --from=sidemount-build /sidemount.spdx.json /usr/share/sbom/
# The node and CSI roles make mounts and need root; the chart runs every other role as non-root.
ENTRYPOINT ["/usr/local/bin/sidemount"]

FROM gcr.io/distroless/static-debian12:nonroot AS csi-sidecars
COPY --from=csi-build /out/ /usr/local/bin/
COPY --from=csi-build /csi-sidecars.spdx.json /usr/share/sbom/
USER 65534:65534

FROM gcr.io/distroless/static-debian12:nonroot AS juicefs-client
COPY --from=juicefs-build /out/sidemount-juicefs /usr/local/bin/sidemount-juicefs
COPY --from=juicefs-build /juicefs-client.spdx.json /usr/share/sbom/
USER 65534:65534
ENTRYPOINT ["/usr/local/bin/sidemount-juicefs"]
