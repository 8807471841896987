/** Who calls, and what its policy lets it do and see. */
import type { Metadata } from '@grpc/grpc-js';

import { type Caller, type Callers, findCaller, LOCAL_CALLER, type Role } from '../config/callers.js';
import { parseOrganizationId } from '../keys/fields.js';
import type { Keyspace } from '../keys/keyspace.js';
import type { OrganizationRef } from '../keys/organization.js';
import { refuseArgument } from '../keys/refusal.js';
import { orRefuse, Refused } from './errors.js';

export type Keyspaces = ReadonlyMap<string, Keyspace>;

/** @throws Refused CALLER_UNKNOWN */
export type Authenticate = (metadata: Metadata) => Caller;

/** @param callers absent: everyone is the caller `local`, whatever token they send */
export function authenticateBy(callers: Callers | undefined): Authenticate {
  if (!callers) return () => LOCAL_CALLER;
  return (metadata) => {
    const [header, ...more] = metadata.get('authorization');
    const token = typeof header === 'string' && more.length === 0 ? BEARER.exec(header)?.[1] : undefined;
    const caller = token === undefined ? undefined : findCaller(callers, token);
    if (!caller) throw new Refused({ refused: 'CALLER_UNKNOWN' });
    return caller;
  };
}

const BEARER = /^bearer +(\S+)$/i;

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
  ImportKeys: ['admin'],
  GetOrganization: ['provisioner', 'auditor', 'admin'],
  UpdateOrganization: ['admin'],
  ListAuditEvents: ['auditor', 'admin'],
} as const satisfies Record<string, readonly Role[]>;

/** @throws Refused CALLER_NOT_ALLOWED */
export function permitRole(caller: Caller, call: CallName): void {
  if (!ALLOWED_ROLES[call].some((role) => caller.roles.has(role))) throw new Refused({ refused: 'CALLER_NOT_ALLOWED' });
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
  const keyspace = keyspaces.get(name);
  if (!keyspace || !covers(caller.keyspaces, name)) throw new Refused({ refused: 'KEYSPACE_NOT_FOUND' });
  return keyspace;
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
