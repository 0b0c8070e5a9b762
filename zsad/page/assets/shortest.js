// The shortest number near a threshold that does the same, from three digits on.
function shortest(limit, same) {
  for (let digits = 3; digits < 17; digits += 1) {
    const near = Number(limit.toPrecision(digits));
    if (same(near)) return near;
  }
  return limit;
}
