import type { Credential as CredentialMessage } from '../gen/keyreeve/v1/credential.js';

/** A bearer token; or a client id and its secret, where the keyspace issues these. Never to be logged. */
export type Credential = string | ClientCredential;

export interface ClientCredential {
  readonly clientId: string;
  readonly secret: string;
}

export function toCredentialMessage(credential: Credential): CredentialMessage {
  return typeof credential === 'string'
    ? { kind: { $case: 'bearerToken', value: credential } }
    : { kind: { $case: 'client', value: credential } };
}

/** Undefined where none is disclosed. */
export function toCredential({ kind }: CredentialMessage): Credential | undefined {
  return kind?.value;
}
