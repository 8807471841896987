/** Certificates and keys in PEM files, checked before anything relies on them. */
import { createPrivateKey, X509Certificate } from 'node:crypto';

import { fault, readNamed } from './named-file.js';
import type { Problem } from './problems.js';
import type { NamedFile } from './settings.js';

export interface PemFiles {
  readonly certificate: NamedFile;
  readonly privateKey: NamedFile;
  /** One or several that vouch for others. */
  readonly ca: NamedFile;
}

/** As text; absent: not named. The certificate, with those that vouch for it, and its key come together. */
export interface Pem {
  readonly certificate?: string;
  readonly privateKey?: string;
  readonly ca?: string;
}

export async function loadPem(files: PemFiles): Promise<Pem | Problem[]> {
  const [certificate, privateKey, ca] = await Promise.all([
    readNamed(files.certificate),
    readNamed(files.privateKey),
    readNamed(files.ca),
  ]);
  if (Array.isArray(certificate) || Array.isArray(privateKey) || Array.isArray(ca)) {
    return [certificate, privateKey, ca].flatMap((part) => (Array.isArray(part) ? part : []));
  }
  const x509 = attempt(() => certificate !== undefined && new X509Certificate(certificate));
  const key = attempt(() => privateKey !== undefined && createPrivateKey(privateKey));
  const problems = [
    ...(x509 === undefined ? [fault(files.certificate, 'a certificate as PEM')] : []),
    ...(key === undefined ? [fault(files.privateKey, 'a private key as PEM, without a passphrase')] : []),
    ...(x509 && key && !x509.checkPrivateKey(key) ? [fault(files.privateKey, 'the key of the certificate')] : []),
    ...(ca !== undefined && !areCertificates(ca) ? [fault(files.ca, 'one certificate or several as PEM')] : []),
  ];
  if (problems.length > 0) return problems;
  return {
    ...(certificate !== undefined && privateKey !== undefined && { certificate, privateKey }),
    ...(ca !== undefined && { ca }),
  };
}

// Whoever is given none of them trusts everyone whom the machine trusts.
function areCertificates(pem: string): boolean {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? [];
  return blocks.length > 0 && blocks.every((block) => attempt(() => new X509Certificate(block)) !== undefined);
}

// What OpenSSL throws tells nobody more, and may hold what it read.
function attempt<T>(parse: () => T): T | undefined {
  try {
    return parse();
  } catch {
    return undefined;
  }
}
