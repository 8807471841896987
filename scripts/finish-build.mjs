// What tsc does not do: copy the descriptors that reflection serves, and set the command's run bit.
import { chmodSync, copyFileSync } from 'node:fs';

copyFileSync('src/gen/descriptors.binpb', 'dist/gen/descriptors.binpb');
chmodSync('dist/cli/main.js', 0o755);
