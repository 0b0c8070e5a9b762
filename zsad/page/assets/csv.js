// A cell that a spreadsheet would take for a formula begins with a quote.
function csvCell(value) {
  let text = String(value ?? "");
  if (typeof value === "string" && /^[\s'"]*[=+\-@]/.test(text)) text = `'${text}`;
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
