/** Keys as people read them. */
import type { Timestamp } from '../../gen/google/protobuf/timestamp.js';
import type { Actor } from '../../gen/keyreeve/v1/actor.js';
import { type Key, RevocationReason } from '../../gen/keyreeve/v1/key.js';
import { organizationPath } from '../../keys/organization.js';
import { actorTypeName, reasonName, stateName } from './messages.js';
import { toFields, toTable } from './table.js';
import { toShortTime } from './times.js';

export function describeKey(key: Key): string {
  return toFields([
    ['name', key.name],
    ['key id', key.keyId],
    ['public id', key.publicId],
    ['client id', key.clientId],
    ['organization', organizationPath(key)],
    ['display', key.display],
    ['state', stateName(key.state).toLowerCase()],
    ['type', key.type],
    ['scopes', key.scopes.join(' ')],
    ['labels', [...key.labels].map(([name, value]) => `${name}=${value}`).join(' ')],
    ['created', timeAndActor(key.createTime, key.createdBy)],
    ['last used', timeOr('never', key.lastUseTime)],
    ['expires', timeOr('never', key.expireTime)],
    ['revoked', key.revokeTime && timeAndActor(key.revokeTime, key.revokedBy)],
    ['reason', describeReason(key)],
    ['rotated from', key.rotatedFrom],
    ['superseded by', key.supersededBy],
  ]);
}

export function listKeys(keys: readonly Key[]): string {
  return toTable(
    ['name', 'key id', 'display', 'state', 'type', 'created', 'last used', 'expires'],
    keys.map((key) => [
      key.name,
      key.keyId,
      key.display,
      stateName(key.state).toLowerCase() + (key.supersededBy === '' ? '' : ', superseded'),
      key.type,
      timeOr('', key.createTime),
      timeOr('never', key.lastUseTime),
      timeOr('never', key.expireTime),
    ]),
  );
}

function describeActor(actor: Actor): string {
  return `${actorTypeName(actor.type).toLowerCase()}:${actor.id}`;
}

function timeOr(absent: string, time: Timestamp | undefined): string {
  return time ? toShortTime(time) : absent;
}

function timeAndActor(time: Timestamp | undefined, actor: Actor | undefined): string {
  return [timeOr('', time), ...(actor ? [`by ${describeActor(actor)}`] : [])].join(' ');
}

function describeReason({ revocationReason, reasonDetail }: Key): string | undefined {
  if (revocationReason === RevocationReason.UNSPECIFIED) return undefined;
  return [reasonName(revocationReason).toLowerCase(), reasonDetail].filter((text) => text !== '').join(': ');
}
