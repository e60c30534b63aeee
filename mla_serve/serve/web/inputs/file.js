// The field for a kind of file that this page cannot show: choose or drop a file; it is sent as it is.

import { el, fileButton, megabytes, title } from "../dom.js";

/** Make the field of a modality that is sent as a file. */
export function fileField({ name, modality, limits, take }) {
  const formats = `${modality.formats.length ? modality.formats.join(", ") : "Any file"}, up to ${megabytes(limits.body_bytes)}`;
  const chosen = el("p", { class: "hint" }, formats);
  let file = null;
  const show = next => {
    file = next;
    chosen.textContent = file ? (file.name ?? name) : formats;
  };
  return {
    element: el("div", { class: "written" }, fileButton("Choose a file", "", `Choose a file for ${title(name)}`, take), chosen),
    noiseless: true,
    accepts: dropped => !/^(image|audio)\//.test(dropped.type),
    load: show,
    clear: () => show(null),
    payload: () => file && Object.assign(file, { filename: file.name ?? name }),
  };
}
