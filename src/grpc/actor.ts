import type { Caller } from '../config/callers.js';
import { ActorType as ActorTypeMessage, type Actor as ActorMessage } from '../gen/keyreeve/v1/actor.js';
import type { ActingActor, Actor, ActorType } from '../keys/actor.js';
import { ACTOR_ID_LENGTH_MAX, parseText } from '../keys/fields.js';
import type { Keyspace } from '../keys/keyspace.js';
import { type Refusal, isRefusal, refuseArgument } from '../keys/refusal.js';

const PERMISSIONS_MAX = 200;

const ACTOR_TYPES: ReadonlyMap<ActorTypeMessage, ActorType> = new Map([
  [ActorTypeMessage.USER, 'USER'],
  [ActorTypeMessage.SERVICE, 'SERVICE'],
  [ActorTypeMessage.API_KEY, 'API_KEY'],
  [ActorTypeMessage.SYSTEM, 'SYSTEM'],
]);

/** On whose behalf a change in the keyspace is made, once it is sure that the caller may say so and the actor may. */
export function parseActor(stated: ActorMessage | undefined, caller: Caller, keyspace: Keyspace): Actor | Refusal {
  const actor = caller.mayAssertActor ? parseStatedActor(stated) : callerItself(stated, caller);
  if (isRefusal(actor)) return actor;
  if (actor.type === 'SYSTEM') return notAllowed('SYSTEM is the service itself and cannot be stated');
  const { managePermissions } = keyspace;
  if (managePermissions.length > 0 && !managePermissions.some((needed) => actor.permissions.includes(needed))) {
    return notAllowed(`the actor needs one of these permissions in this keyspace: ${managePermissions.join(', ')}`);
  }
  return { type: actor.type, id: actor.id };
}

function parseStatedActor(stated: ActorMessage | undefined): ActingActor | Refusal {
  const type = stated && ACTOR_TYPES.get(stated.type);
  const id = parseText(stated?.id ?? '', {
    field: 'actor.id',
    lengthMax: ACTOR_ID_LENGTH_MAX,
    refused: 'TEXT_INVALID',
  });
  if (isRefusal(id)) return id;
  if (!type || id === '') {
    return refuseArgument('ACTOR_REQUIRED', 'actor', 'this caller must state the actor, with type and id');
  }
  if (stated.permissions.length > PERMISSIONS_MAX) {
    return refuseArgument('TEXT_INVALID', 'actor.permissions', `actor.permissions must be at most ${PERMISSIONS_MAX}`);
  }
  return { type, id, permissions: stated.permissions };
}

/** Its permissions are those of its policy, also where it states itself: it vouches for nobody. */
function callerItself(stated: ActorMessage | undefined, caller: Caller): ActingActor | Refusal {
  const itself: ActingActor = { type: 'SERVICE', id: caller.name, permissions: caller.permissions };
  if (!stated || (stated.type === ActorTypeMessage.UNSPECIFIED && stated.id === '')) return itself;
  if (stated.type === ActorTypeMessage.SERVICE && stated.id === caller.name) return itself;
  return notAllowed('this caller acts for itself and may not state another actor; leave actor out');
}

function notAllowed(message: string): Refusal {
  return { refused: 'ACTOR_NOT_ALLOWED', message };
}
