/** Who calls, and what its policy lets it do and see. */
import type { PeerCertificate } from 'node:tls';

import type { ServerUnaryCall } from '@grpc/grpc-js';

import { type Caller, type Callers, findCaller, LOCAL_CALLER, type Role } from '../config/callers.js';
import { parseOrganizationId } from '../keys/fields.js';
import type { Keyspace } from '../keys/keyspace.js';
import type { OrganizationRef } from '../keys/organization.js';
import { refuseArgument } from '../keys/refusal.js';
import { orRefuse, Refused } from './errors.js';

export type Keyspaces = ReadonlyMap<string, Keyspace>;

/** What somebody who calls shows, whichever way the call came. */
export interface Shows {
  readonly token: string | undefined;
  /** One that was checked when the connection began. */
  readonly certificate: PeerCertificate | undefined;
}

/** @throws Refused CALLER_UNKNOWN */
export type Authenticate<Carrier> = (call: Carrier) => Caller;

/**
 * @param show reads what a call shows; throws `Refused` CALLER_UNKNOWN where that cannot be read
 * @param callersNow undefined: everyone is the caller `local`, whatever they show
 */
export function authenticateBy<Carrier>(
  show: (call: Carrier) => Shows,
  callersNow: () => Callers | undefined,
  now: () => Date,
): Authenticate<Carrier> {
  return (call) => {
    const callers = callersNow();
    if (!callers) return LOCAL_CALLER;
    const { token, certificate } = show(call);
    const certificateNames = certificate ? namesIn(certificate, now()) : [];
    const caller = findCaller(callers, { certificateNames, ...(token !== undefined && { token }) });
    if (!caller) throw new Refused({ refused: 'CALLER_UNKNOWN' });
    return caller;
  };
}

/** What shows, of a call over gRPC, who makes it. */
export type GrpcCarrier = Pick<ServerUnaryCall<unknown, unknown>, 'metadata' | 'getAuthContext'>;

/** @throws Refused CALLER_UNKNOWN for anything but one bearer token, or none */
export function shownOverGrpc(call: GrpcCarrier): Shows {
  const [header, ...more] = call.metadata.get('authorization');
  const token = typeof header === 'string' && more.length === 0 ? BEARER.exec(header)?.[1] : undefined;
  if (header !== undefined && token === undefined) throw new Refused({ refused: 'CALLER_UNKNOWN' });
  return { token, certificate: call.getAuthContext().sslPeerCertificate };
}

/**
 * The names that a checked certificate is good for, as `URI:…` and `DNS:…`. It was checked when the connection began, so
 * it may have ended since. More than one URI makes it no SPIFFE id
 * (https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md#2-spiffe-id).
 */
function namesIn({ subjectaltname, valid_to }: PeerCertificate, now: Date): readonly string[] {
  // Node quotes a name in which a comma could pass for the end of it.
  if (subjectaltname === undefined || subjectaltname.includes('"') || now > new Date(valid_to)) return [];
  const names = subjectaltname.split(', ');
  const uris = names.filter((name) => name.startsWith('URI:'));
  const hosts = names.filter((name) => name.startsWith('DNS:')).map((name) => `DNS:${name.slice(4).toLowerCase()}`);
  return uris.length > 1 ? hosts : [...uris, ...hosts];
}

const BEARER = /^bearer +(\S+)$/i;

/** Those of the API, and `ForwardAuth`, which comes over HTTP. */
export type CallName = keyof typeof ALLOWED_ROLES;

// Whoever is not named here is denied.
const ALLOWED_ROLES = {
  CreateKey: ['provisioner', 'admin'],
  GetKey: ['provisioner', 'auditor', 'admin'],
  ListKeys: ['provisioner', 'auditor', 'admin'],
  UpdateKey: ['provisioner', 'admin'],
  RevokeKey: ['provisioner', 'admin'],
  RotateKey: ['provisioner', 'admin'],
  VerifyKey: ['verifier', 'admin'],
  BatchVerifyKeys: ['verifier', 'admin'],
  Check: ['verifier', 'admin'],
  ForwardAuth: ['verifier', 'admin'],
  ImportKeys: ['admin'],
  GetOrganization: ['provisioner', 'auditor', 'admin'],
  UpdateOrganization: ['admin'],
  ListAuditEvents: ['auditor', 'admin'],
} as const satisfies Record<string, readonly Role[]>;

export const CALL_NAMES = Object.keys(ALLOWED_ROLES) as readonly CallName[];

/** @throws Refused CALLER_NOT_ALLOWED */
export function permitRole(caller: Caller, call: CallName): void {
  for (const role of ALLOWED_ROLES[call]) if (caller.roles.has(role)) return;
  throw new Refused({ refused: 'CALLER_NOT_ALLOWED' });
}

/** The organization that a request is about, and the policy under which its keys are issued. */
export interface Tenant {
  readonly keyspace: Keyspace;
  readonly organization: OrganizationRef;
  /** Whether the caller's policy covers it. If not, it reads as empty, and whether it exists is not looked up. */
  readonly isVisible: boolean;
}

/**
 * The tenant that a request names. A keyspace that the caller may not use is as one that does not exist.
 * @throws Refused KEYSPACE_REQUIRED, KEYSPACE_NOT_FOUND, ORGANIZATION_ID_INVALID
 */
export function toTenant(
  request: { readonly keyspace: string; readonly organizationId: string },
  caller: Caller,
  keyspaces: Keyspaces,
): Tenant {
  const keyspace = toKeyspace(request.keyspace, caller, keyspaces);
  const organizationId = orRefuse(parseOrganizationId(request.organizationId));
  const organization = { keyspace: keyspace.name, organizationId };
  return { keyspace, organization, isVisible: sees(caller, organization) };
}

/** @throws Refused KEYSPACE_REQUIRED, KEYSPACE_NOT_FOUND */
export function toKeyspace(name: string, caller: Caller, keyspaces: Keyspaces): Keyspace {
  if (name === '') throw new Refused(refuseArgument('KEYSPACE_REQUIRED', 'keyspace', 'keyspace is required'));
  const keyspace = findKeyspace(name, caller, keyspaces);
  if (!keyspace) throw new Refused({ refused: 'KEYSPACE_NOT_FOUND' });
  return keyspace;
}

/** Undefined where there is none that the caller may use. */
export function findKeyspace(name: string, caller: Caller, keyspaces: Keyspaces): Keyspace | undefined {
  return covers(caller.keyspaces, name) ? keyspaces.get(name) : undefined;
}

/** Those that the caller may use. */
export function keyspacesOf(caller: Caller, keyspaces: Keyspaces): Keyspace[] {
  return [...keyspaces.values()].filter(({ name }) => covers(caller.keyspaces, name));
}

export function sees(caller: Caller, { keyspace, organizationId }: OrganizationRef): boolean {
  return covers(caller.keyspaces, keyspace) && covers(caller.organizations, organizationId);
}

/** @throws Refused CALLER_NOT_ALLOWED */
export function permitChange({ isVisible }: Tenant): void {
  if (!isVisible) throw new Refused({ refused: 'CALLER_NOT_ALLOWED' });
}

function covers(scope: Caller['keyspaces'], name: string): boolean {
  return scope === 'all' || scope.has(name);
}
