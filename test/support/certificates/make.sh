#!/usr/bin/env bash
# Makes the certificates of the tests, for a hundred years, and keeps no CA's key: all are made anew together.
set -euo pipefail
cd "$(dirname "$0")"

ca() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 36500 -subj "/CN=$1" \
    -keyout "$1.key" -out "$1.pem" 2>/dev/null
}

# certificate NAME CA DAYS SUBJECT-ALTERNATIVE-NAMES
certificate() {
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$1" -keyout "$1.key" 2>/dev/null |
    openssl x509 -req -CA "$2.pem" -CAkey "$2.key" -days "$3" -extfile <(echo "subjectAltName=$4") -out "$1.pem" 2>/dev/null
}

ca ca
ca other-ca
certificate server ca 36500 'DNS:localhost,IP:127.0.0.1'
certificate renewed ca 36500 'DNS:localhost,IP:127.0.0.1'
certificate gateway ca 36500 'URI:spiffe://example.org/gateway'
certificate platform ca 36500 'DNS:platform.example.org'
certificate expired ca -1 'URI:spiffe://example.org/gateway'
certificate unnamed ca 36500 'URI:spiffe://example.org/unnamed'
certificate two-ids ca 36500 'URI:spiffe://example.org/gateway,URI:spiffe://example.org/platform'
certificate stranger other-ca 36500 'URI:spiffe://example.org/gateway'
rm ca.key other-ca.key
