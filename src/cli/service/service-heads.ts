import { status } from '@grpc/grpc-js';
import { z } from 'zod';

import type { Entry, Place } from '../../audit/verify-chain.js';
import { AuditServiceService } from '../../gen/keyreeve/v1/audit_service.js';
import { parseOrganizationId } from '../../keys/fields.js';
import { organizationPath, type OrganizationRef } from '../../keys/organization.js';
import { isRefusal } from '../../keys/refusal.js';
import { CommandFault } from '../faults.js';
import type { ServiceClient } from './client.js';

/**
 * Where chains end, as a running service tells. It lists no organizations, so it is asked about each one when its first
 * event is met: one of which no event is there stays unknown.
 */
export class ServiceHeads {
  readonly #client: ServiceClient;
  readonly #organizations = new Map<string, OrganizationRef>();
  readonly #heads = new Map<string, Place>();

  constructor(client: ServiceClient) {
    this.#client = client;
  }

  /** Of the organizations met so far, as of when each was met. */
  get heads(): ReadonlyMap<string, Place> {
    return this.#heads;
  }

  /** @throws CommandFault where the service does not answer */
  async meet(organization: OrganizationRef): Promise<void> {
    const path = organizationPath(organization);
    if (this.#organizations.has(path)) return;
    this.#organizations.set(path, organization);
    const head = await this.#ask(organization);
    if (head) this.#heads.set(path, head);
  }

  /** Passes entries on, and meets their organizations. */
  async *watch(entries: AsyncIterable<Entry>): AsyncGenerator<Entry> {
    for await (const entry of entries) {
      const organization = organizationOf(entry.text);
      if (organization) await this.meet(organization);
      yield entry;
    }
  }

  /** The same organizations' heads as of now. */
  async askAgain(): Promise<Map<string, Place>> {
    const heads = new Map<string, Place>();
    for (const [path, organization] of this.#organizations) {
      const head = await this.#ask(organization);
      if (head) heads.set(path, head);
    }
    return heads;
  }

  async #ask({ keyspace, organizationId }: OrganizationRef): Promise<Place | undefined> {
    const request = { keyspace, organizationId, keyId: '', types: [], afterSequence: 0n, pageSize: 1, pageToken: '' };
    try {
      const { headSequence, headHash } = await this.#client.call(AuditServiceService.listAuditEvents, request);
      return headSequence > 0n ? { sequence: Number(headSequence), hash: headHash } : undefined;
    } catch (error) {
      if (isUnknownKeyspace(error)) return undefined;
      throw error;
    }
  }
}

// What a forged event may name: then its organization has no events in the service, which is a finding.
function isUnknownKeyspace(error: unknown): boolean {
  return (
    error instanceof CommandFault &&
    error.cause instanceof Error &&
    'code' in error.cause &&
    error.cause.code === status.NOT_FOUND
  );
}

const eventShape = z.object({ data: z.object({ keyspace: z.string(), organization_id: z.string() }) });

/** Undefined where the text is no event, or names no organization that could be asked about. */
function organizationOf(text: string): OrganizationRef | undefined {
  try {
    const { data } = eventShape.parse(JSON.parse(text));
    const organizationId = parseOrganizationId(data.organization_id);
    return isRefusal(organizationId) ? undefined : { keyspace: data.keyspace, organizationId };
  } catch {
    return undefined;
  }
}
