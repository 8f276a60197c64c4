// Dialogs: a change is confirmed in words before it is sent, and what went wrong is told in words. Owns their elements.
import { Failure, look, token } from "./api.js";
import { el, put } from "./dom.js";
import { t } from "./say.js";

let serial = 0;

/** A modal dialog; Esc closes it, and the focus goes back to where it was. */
function show(title, build) {
  const id = `dialog-${++serial}`;
  const body = el("div", { id: id + "-words" });
  const form = el("form", { method: "dialog", novalidate: true });
  const dialog = el("dialog", { "aria-labelledby": id, "aria-describedby": id + "-words" },
    el("h2", { id }, title), body, form);
  dialog.addEventListener("close", () => dialog.remove());
  // A click beside it closes it too.
  dialog.addEventListener("pointerdown", (event) => {
    if (event.target === dialog) dialog.close();
  });
  build({ dialog, body, form });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** What a refused or lost change means, as lines of text. */
export function failureLines(failure, persist) {
  const known = [400, 401, 403, 404, 409, 412, 429];
  const lines = [];
  if (failure.status === 0) lines.push(t("error_network"));
  else if (known.includes(failure.status)) lines.push(t("error_" + failure.status));
  else lines.push(t("error_other", { status: failure.status }));
  if (failure.status === 409 && persist) lines.push(t("error_409_persist"));
  if (failure.said) lines.push(`${t("error_said")} ${failure.said}`);
  return lines;
}

/**
 * Asks whether to make a change. `words`: paragraphs. `fields`: elements of the form. `send(choice)` sends it, with
 * `choice.etag` of the configuration that was shown; `etag()` is the one of now; `nowLines()` tell how things are now.
 * `done(answer)` comes after success, `failed(lines)` when the dialog was left before the failure came.
 */
export function confirm({ title, words, fields = [], label, isDanger, asksForValues, check, send, etag, nextFrame, nowLines, done, failed, unauthorised }) {
  show(title, ({ dialog, body, form }) => {
    let shownEtag = etag();
    body.append(...words.map((text) => el("p", {}, text)));
    const persist = el("input", { type: "checkbox", checked: true });
    const trouble = el("div", { class: "trouble", role: "alert" });
    const cancel = el("button", { type: "button", onclick: () => dialog.close() }, t("cancel"));
    const go = el("button", { type: "submit", class: isDanger ? "danger" : "primary" }, label);
    form.append(...fields, el("label", { class: "check" }, persist, el("span", {}, t("persist"))), trouble,
      el("div", { class: "buttons" }, cancel, go));
    // Enter by accident does nothing, but where something is to be typed in.
    if (!asksForValues) cancel.autofocus = true;
    const tell = (lines) => {
      if (dialog.open) trouble.replaceChildren(...lines.map((text) => el("p", {}, text)));
      else failed(lines);
    };
    let underWay = false;
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      if (underWay) return;
      const wrong = check?.();
      if (wrong) return tell([wrong]);
      underWay = true;
      go.setAttribute("aria-disabled", "true");
      put(go, t("sending"));
      trouble.replaceChildren();
      let name = label;
      try {
        const answer = await send({ etag: shownEtag, persist: persist.checked });
        dialog.close();
        done(answer);
      } catch (error) {
        const failure = error instanceof Failure ? error : new Failure(0, String(error.message ?? error));
        if (failure.status === 401) unauthorised();
        const lines = failureLines(failure, persist.checked);
        if (failure.status === 412) {
          await nextFrame();
          lines.push(...nowLines());
          // Sent again it is a decision about what is there now.
          shownEtag = etag();
          name = t("again");
        }
        tell(lines);
      } finally {
        underWay = false;
        go.removeAttribute("aria-disabled");
        put(go, name);
      }
    });
  });
}

/** A number to fill in, with its words. */
export function numberField({ name, label, words, value, min, max }) {
  const id = `field-${++serial}`;
  const input = el("input", { id, name, type: "number", value, min, max, step: 1, required: true, inputmode: "numeric",
    "aria-describedby": id + "-words" });
  const element = el("div", { class: "field" }, el("label", { for: id }, label), input,
    el("p", { class: "note", id: id + "-words" }, words));
  return { element, input };
}

/** Whether to cut what is still under way, and after how long. */
export function forceField() {
  const box = el("input", { type: "checkbox" });
  const after = el("input", { type: "number", value: 30, min: 0, max: 86400, step: 1, inputmode: "numeric",
    "aria-label": t("force_seconds") });
  const words = el("p", { class: "note", hidden: true }, t("force_words"));
  box.addEventListener("change", () => { words.hidden = !box.checked; });
  after.addEventListener("input", () => {
    box.checked = true;
    words.hidden = false;
  });
  const element = el("div", { class: "field" },
    el("div", { class: "force" }, el("label", { class: "check" }, box, el("span", {}, t("force"))), after, el("span", {}, t("seconds"))), words);
  const body = () => (box.checked ? { force: true, timeout: `${after.value.trim()}s` } : {});
  return { element, body };
}

let asking = null;

/** Asks for the token, tries it and keeps it. Only one dialog at a time. */
export function askToken({ wasWrong, done }) {
  if (asking?.open) return;
  asking = show(t("token_title"), ({ dialog, body, form }) => {
    body.append(el("p", {}, t("token_words")));
    const input = el("input", { id: "token", type: "password", autocomplete: "off", spellcheck: "false", required: true });
    const trouble = el("div", { class: "trouble", role: "alert" });
    if (wasWrong) trouble.append(el("p", {}, t("token_wrong")));
    form.append(el("div", { class: "field" }, el("label", { for: "token" }, t("token_label")), input), trouble,
      el("div", { class: "buttons" }, el("button", { type: "button", onclick: () => dialog.close() }, t("cancel")),
        el("button", { type: "submit", class: "primary" }, t("token_use"))));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const given = input.value.trim();
      if (!given) return input.focus();
      // A field value can't hold more than these; others would fail without words.
      const usable = /^[\x21-\x7e]+$/.test(given);
      token.set(usable ? given : null);
      try {
        if (!usable) throw new Failure(401, "");
        await look("/api/v1/log/level");
        dialog.close();
        done();
      } catch (failure) {
        token.set(null);
        const words = failure.status === 401 ? t("token_wrong") : failure.said || t("lost_never");
        trouble.replaceChildren(el("p", {}, words));
        input.select();
      }
    });
  });
}
