/// Sizes for people: decimal units, three significant digits.
package enum ByteCount {
  private static let units = ["kB", "MB", "GB", "TB", "PB", "EB"]

  /// `1_130_000_000` -> "1.13 GB", `12_345` -> "12.3 kB", `999` -> "999 bytes".
  package static func describe(_ bytes: Int) -> String {
    let sign = bytes < 0 ? "-" : ""
    let magnitude = UInt(bytes.magnitude)
    if magnitude < 1000 {
      return "\(sign)\(magnitude) \(magnitude == 1 ? "byte" : "bytes")"
    }
    var scale: UInt = 1000
    var unit = 0
    while unit + 1 < units.count, roundedHundredths(magnitude, scale) >= 100_000 {
      scale *= 1000
      unit += 1
    }
    return sign + threeDigits(roundedHundredths(magnitude, scale)) + " " + units[unit]
  }

  /// `value / scale` in hundredths, rounded to the three digits that are shown.
  private static func roundedHundredths(_ value: UInt, _ scale: UInt) -> UInt {
    let step: UInt = value / scale >= 100 ? 100 : value / scale >= 10 ? 10 : 1
    let unit = scale / 100 * step
    let (quotient, remainder) = value.quotientAndRemainder(dividingBy: unit)
    return (quotient + (remainder >= unit - remainder ? 1 : 0)) * step
  }

  private static func threeDigits(_ hundredths: UInt) -> String {
    let (whole, fraction) = hundredths.quotientAndRemainder(dividingBy: 100)
    if whole >= 100 { return "\(whole)" }
    if whole >= 10 { return "\(whole).\(fraction / 10)" }
    return "\(whole).\(fraction < 10 ? "0" : "")\(fraction)"
  }
}
