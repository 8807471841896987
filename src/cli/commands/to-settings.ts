import { formatProblem } from '../../config/problems.js';
import { type Environment, parseSettings, type Settings } from '../../config/settings.js';
import { UsageFault } from '../faults.js';

/** The service's own settings. @throws UsageFault with all that is wrong with them */
export function toSettings(env: Environment): Settings {
  const settings = parseSettings(env);
  if (Array.isArray(settings)) throw new UsageFault(settings.map(formatProblem).join('\n'));
  return settings;
}
