import type { SecureContextOptions } from 'node:tls';

import { ServerCredentials } from '@grpc/grpc-js';

import type { TlsIdentity } from '../config/access.js';

/** What the server presents in new connections, and whose certificates it asks of them. Those that are open go on. */
export class ReloadableTls extends ServerCredentials {
  constructor(tls: TlsIdentity) {
    super({ requestCert: tls.clientCa !== undefined, rejectUnauthorized: true }, contextOf(tls));
  }

  /** Clients are asked for a certificate from the start on, or never. */
  present(tls: TlsIdentity): void {
    this.updateSecureContextOptions(contextOf(tls));
  }

  override _equals(other: ServerCredentials): boolean {
    return this === other;
  }
}

function contextOf({ certificate, privateKey, clientCa }: TlsIdentity): SecureContextOptions {
  return { cert: certificate, key: privateKey.reveal(), ca: clientCa };
}
