import type { TlsIdentity } from '../../src/config/access.js';
import { Secret } from '../../src/keys/secret.js';

/** A certificate of these tests alone, for `localhost` and 127.0.0.1, valid for a hundred years. */
export const TEST_TLS: TlsIdentity = {
  certificate: `-----BEGIN CERTIFICATE-----
MIIBmzCCAUGgAwIBAgIUPPZ9Ho7XitCmTdBH9RBjFAQzklMwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMTExMTUzM1oYDzIxMjYxMDI4
MTExNTMzWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAARiIaWzauDhBbBPhr9/7DEiw2BOd0/rkWh2sQrNoiqAzFEm1YGsh3At
EJ5q9KjJb+jKGoT9Vk8jreXHwXaMhZXJo28wbTAdBgNVHQ4EFgQUGnWI/J2HnKJ7
tOkdv/LWRXn+HQgwHwYDVR0jBBgwFoAUGnWI/J2HnKJ7tOkdv/LWRXn+HQgwDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDSAAwRQIgJZzJG++FF4WVh+YPevgPeh5tmPEMNzJEupOkDJUku5wCIQDT
xcWbZmRI+S0Lbj0dGa8TpAGNeMjiMO5oY/mPbYPfZQ==
-----END CERTIFICATE-----
`,
  privateKey: new Secret(`-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgLpxvonhyKx6ZXboC
l90fTUxHif6d5VavdJZX0tuhTbKhRANCAARiIaWzauDhBbBPhr9/7DEiw2BOd0/r
kWh2sQrNoiqAzFEm1YGsh3AtEJ5q9KjJb+jKGoT9Vk8jreXHwXaMhZXJ
-----END PRIVATE KEY-----
`),
};
