// The main job, once for every client that uses the messages of protobuf-es.
//
// A client has:
//   call(method, request, {token, customer, wait})   an rpc; throws the client's own error
//   watch(method, request, {token, signal})          a server stream, as an async iterable
//   refusal(error)                                   what it tells of its own error: {code, reason, fields}

import { ConfiguratorService } from 'gen/agentrouter/configurator/v1/configurator_pb.js';
import { ConfigType } from 'gen/agentrouter/configurator/v1/configuration_pb.js';
import { ProvidersService, ProviderSchema } from 'gen/agentrouter/providers/v1/providers_pb.js';
import { ProjectsService } from 'gen/agentrouter/tenancy/v1/projects_pb.js';
import { TenancyService } from 'gen/agentrouter/tenancy/v1/tenancy_pb.js';
import { WorkspacesService } from 'gen/agentrouter/workspaces/v1/workspaces_pb.js';

const configurator = ConfiguratorService.method;
const workspaces = WorkspacesService.method;

function equal(found, wanted, what) {
  const [left, right] = [found, wanted].map((value) => JSON.stringify(value, (_, v) => typeof v === 'bigint' ? `${v}` : v));
  if (left !== right) throw new Error(`${what}: ${left} is not ${right}`);
}

async function refused(client, call) {
  let answer;
  try {
    answer = await call;
  } catch (error) {
    return client.refusal(error);
  }
  throw new Error(`not refused: ${JSON.stringify(answer)}`);
}

/** Whether a status tells that version 1 of the providers is applied. */
function isApplied(status) {
  return status.converged && status.slots.some((slot) => slot.appliedVersion === 1n);
}

export async function mainJob(client, customer, operatorKey) {
  const operator = { token: operatorKey };
  const edge = { customerId: customer, workspaceId: 'edge' };

  const { getCustomer, createCustomer } = TenancyService.method;
  const stranger = await refused(client, client.call(getCustomer, { customerId: 'default' }, { token: 'wrong' }));
  equal(stranger, { code: 16, reason: 'UNAUTHENTICATED', fields: [] }, 'bad credentials');
  const wrong = await refused(client, client.call(createCustomer, { customerId: 'Not A Slug' }, operator));
  equal(wrong, { code: 3, reason: 'INVALID_FIELDS', fields: ['customer_id'] }, 'a wrong field');

  await client.call(createCustomer, { customerId: customer }, operator);
  await client.call(ProjectsService.method.createProject, { customerId: customer, projectId: 'chat' }, operator);
  await client.call(workspaces.createWorkspace, edge, operator);
  const { token } = await client.call(workspaces.issueWorkspaceToken, edge, operator);
  const worker = { token };

  const stop = new AbortController();
  const statuses = client.watch(workspaces.watchWorkspaceStatus, edge, { ...operator, signal: stop.signal });
  const watching = statuses[Symbol.asyncIterator]();
  const { value: first } = await watching.next();
  equal([first.workspace.workspaceId, isApplied(first)], ['edge', false], 'the first status');

  // The poll waits until there is something.
  const polling = client.call(configurator.listPendingEvents, { wait: { seconds: 40n } }, { ...worker, wait: true });
  const provider = { customerId: customer, providerId: 'openai', schema: ProviderSchema.OPENAI, models: ['m'] };
  const secrets = { baseUrl: 'https://api.openai.example/v1', apiKey: 'sk-canary' };
  await client.call(ProvidersService.method.createProvider, { ...provider, ...secrets }, operator);
  const { events } = await polling;
  equal([events.length, events[0]?.version], [1, 1n], 'the events');

  const eventId = events[0].id;
  const claim = await client.call(configurator.acknowledgeEvent, { eventId, workerId: customer }, worker);
  equal(claim.success, true, 'the claim');
  const queries = [{ userId: 'system', configType: ConfigType.PROVIDERS }];
  const { configurations } = await client.call(configurator.getConfiguration, { queries }, worker);
  const { providers } = configurations[0].payload.value;
  equal([providers[0].providerId, providers[0].credential.value], ['openai', 'sk-canary'], 'the configuration');
  const report = { eventId, success: true, claimToken: claim.claimToken };
  equal((await client.call(configurator.completeEvent, report, worker)).success, true, 'the completion');

  const status = await client.call(workspaces.getWorkspaceStatus, edge, operator);
  equal(isApplied(status), true, 'the status');
  for (;;) {
    const { done, value } = await watching.next();
    if (done) throw new Error('the stream of statuses ended before all was applied');
    if (isApplied(value)) break;
  }
  stop.abort();
  // It ends as the client ends what it gave up itself.
  await watching.next().catch(() => undefined);

  const slot = { userId: 'system', configType: ConfigType.PROVIDERS };
  const triggered = await client.call(configurator.triggerUpdate, slot, { ...operator, customer });
  equal([triggered.configurationUpdated, triggered.configuration.version], [false, 1n], 'the same content again');
}
