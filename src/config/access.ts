/** Who may call, and the certificates by which both sides are known: what may change while the service runs. */
import { createPrivateKey, X509Certificate } from 'node:crypto';

import type { Keyspace } from '../keys/keyspace.js';
import { Secret } from '../keys/secret.js';
import { type Callers, parseCallers } from './callers.js';
import { fault, readNamed, within } from './named-file.js';
import type { Problem } from './problems.js';
import type { NamedFile } from './settings.js';

export interface Access {
  /** Absent: whoever connects is `LOCAL_CALLER`. */
  readonly callers?: Callers;
  readonly tls?: TlsIdentity;
}

/** A certificate, with those that vouch for it, and the key that it fits; all PEM. */
export interface TlsIdentity {
  readonly certificate: string;
  readonly privateKey: Secret;
  /** Whose certificates clients must have; absent: none are asked for. */
  readonly clientCa?: string;
}

export interface AccessFiles {
  readonly callers: NamedFile;
  readonly certificate: NamedFile;
  readonly privateKey: NamedFile;
  readonly clientCa: NamedFile;
}

/** @param keyspaces those that callers may be allowed; undefined where they are not known, and then any may be */
export async function loadAccess(
  files: AccessFiles,
  keyspaces: ReadonlyMap<string, Keyspace> | undefined,
): Promise<Access | Problem[]> {
  const callers = await loadCallers(files.callers, keyspaces);
  const tls = await loadTls(files);
  if (Array.isArray(callers) || Array.isArray(tls)) {
    return [callers, tls].flatMap((part) => (Array.isArray(part) ? part : []));
  }
  return { ...(callers && { callers }), ...(tls && { tls }) };
}

/** When the server's certificate begins to hold, and when it ends. */
export function lifetimeOf({ certificate }: Pick<TlsIdentity, 'certificate'>): { from: Date; until: Date } {
  const { validFrom, validTo } = new X509Certificate(certificate);
  return { from: new Date(validFrom), until: new Date(validTo) };
}

async function loadCallers(
  file: NamedFile,
  keyspaces: ReadonlyMap<string, Keyspace> | undefined,
): Promise<Callers | undefined | Problem[]> {
  const text = await readNamed(file);
  if (text === undefined || Array.isArray(text)) return text;
  return within(file, parseCallers(text, keyspaces));
}

async function loadTls(files: AccessFiles): Promise<TlsIdentity | undefined | Problem[]> {
  const read = await Promise.all([files.certificate, files.privateKey, files.clientCa].map(readNamed));
  const unread = read.flatMap((text) => (Array.isArray(text) ? text : []));
  if (unread.length > 0) return unread;
  const [certificate, privateKey, clientCa] = read as (string | undefined)[];
  if (certificate === undefined || privateKey === undefined) return undefined;
  const x509 = attempt(() => new X509Certificate(certificate));
  const key = attempt(() => createPrivateKey(privateKey));
  const problems = [
    ...(x509 ? [] : [fault(files.certificate, 'a certificate as PEM')]),
    ...(key ? [] : [fault(files.privateKey, 'a private key as PEM, without a passphrase')]),
    ...(x509 && key && !x509.checkPrivateKey(key) ? [fault(files.privateKey, 'the key of the certificate')] : []),
    ...(clientCa === undefined || areCertificates(clientCa)
      ? []
      : [fault(files.clientCa, 'one certificate or several as PEM')]),
  ];
  if (problems.length > 0) return problems;
  return { certificate, privateKey: new Secret(privateKey), ...(clientCa !== undefined && { clientCa }) };
}

// A server that is given none of them would trust everyone whom the machine trusts.
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
