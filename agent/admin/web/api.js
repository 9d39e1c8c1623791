// The management API as functions. Every failure is an ApiError with a sentence a person can read.

export class ApiError extends Error {
  constructor(status, error = {}, retryAfter = 0) {
    super(error.message || `The agent answered ${status}.`);
    this.status = status;
    this.code = error.code || "";
    this.fields = error.fields || [];
    this.confirm = error.confirm;
    this.pending = error.pending;
    this.parked = error.parked;
    this.retryAfter = retryAfter;
  }
}

/// "signed-out" when the session is gone.
export const events = new EventTarget();

export async function call(method, path, body) {
  const request = { method, headers: { "X-Signal-Agent": "console" }, cache: "no-store" };
  if (body !== undefined) {
    request.headers["Content-Type"] = "application/json";
    request.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(`/v1/admin/${path}`, request);
  } catch {
    throw new ApiError(0, { code: "UNREACHABLE", message: "The agent does not answer at this address." });
  }
  const text = await response.text().catch(() => "");
  let answer = null;
  try {
    answer = text ? JSON.parse(text) : null;
  } catch {
    // ignored because the status below says enough
  }
  if (response.ok) return answer;
  const fault = new ApiError(response.status, answer?.error, Number(response.headers.get("Retry-After")) || 0);
  if (fault.status === 401 && path !== "session") events.dispatchEvent(new Event("signed-out"));
  throw fault;
}

export const query = (values) => {
  const pairs = Object.entries(values).filter(([, value]) => value !== "" && value != null);
  return pairs.length ? `?${new URLSearchParams(pairs)}` : "";
};

const segment = encodeURIComponent;

export const session = () => call("GET", "session");
export const signIn = (token) => call("POST", "session", { token });
export const signOut = () => call("DELETE", "session");
export const getStatus = () => call("GET", "status");
export const catalog = () => call("GET", "integration-catalog");
export const install = (key, body) => call("POST", `integration-catalog/${segment(key)}/install`, body);
export const checkBefore = (key, body) => call("POST", `integration-catalog/${segment(key)}/check`, body);
export const integration = (id) => call("GET", `integrations/${segment(id)}`);
export const patch = (id, config) => call("PATCH", `integrations/${segment(id)}`, { config });
export const remove = (id, confirm) => call("DELETE", `integrations/${segment(id)}${query({ confirm })}`);
/// act: enable, disable, pause, resume, check, test-event
export const act = (id, act) => call("POST", `integrations/${segment(id)}/${act}`);
export const deadLetters = (id, values) => call("GET", `integrations/${segment(id)}/dead-letters${query(values)}`);
export const deadLetter = (id, seq) => call("GET", `integrations/${segment(id)}/dead-letters/${segment(seq)}`);
export const replay = (id, selection) => call("POST", `integrations/${segment(id)}/dead-letters/replay`, selection);
export const discard = (id, selection) => call("POST", `integrations/${segment(id)}/dead-letters/discard`, selection);
export const receipt = (seq) => call("GET", `events/${segment(seq)}`);
export const liveUrl = (values) => `/v1/admin/events/live${query(values)}`;
