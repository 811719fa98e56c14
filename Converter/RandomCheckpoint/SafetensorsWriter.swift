/// A safetensors file as its own library writes it: wider elements first, then by name, the header padded to eight bytes.
struct SafetensorsWriter {
  private let file: Layout.File
  private let entries: [(name: String, tensor: Layout.Tensor)]

  /// `file` has passed the layout's checks.
  init(_ file: Layout.File, spelling: Spelling) {
    self.file = file
    let newNames = spelling == .new ? file.newNames ?? [:] : [:]
    let named: [(name: String, tensor: Layout.Tensor)] = (file.tensors ?? []).compactMap { tensor in
      guard let renamed = newNames[tensor.name] else { return (tensor.name, tensor) }
      return renamed.map { ($0, tensor) }
    }
    entries = named.sorted { first, second in
      let (one, other) = (first.tensor.elementBytes, second.tensor.elementBytes)
      return one == other ? first.name.utf8.lexicographicallyPrecedes(second.name.utf8) : one > other
    }
  }

  func write(to sink: FileSink) throws(RandomCheckpointError) {
    let header = header()
    var prefix: [UInt8] = []
    appendLittleEndian(UInt64(header.count), to: &prefix)
    try sink.write(prefix + header)
    for entry in entries { try sink.write(entry.tensor, of: file.path) }
  }

  private func header() -> [UInt8] {
    var members = ["\"__metadata__\":{\"format\":\"pt\"}"]
    var start = 0
    for entry in entries {
      let end = start + (entry.tensor.byteCount ?? 0)
      let shape = entry.tensor.shape.map(String.init).joined(separator: ",")
      let type = entry.tensor.isInteger ? "I64" : "F32"
      members.append(
        "\(jsonString(entry.name)):{\"dtype\":\"\(type)\",\"shape\":[\(shape)],\"data_offsets\":[\(start),\(end)]}")
      start = end
    }
    var text = Array("{\(members.joined(separator: ","))}".utf8)
    while text.count % 8 != 0 { text.append(UInt8(ascii: " ")) }
    return text
  }
}

/// A JSON string with everything but ASCII escaped.
func jsonString(_ text: String) -> String {
  var result = "\""
  for unit in text.utf16 {
    switch unit {
    case UInt16(UInt8(ascii: "\"")): result += "\\\""
    case UInt16(UInt8(ascii: "\\")): result += "\\\\"
    case 0x20..<0x7F: result.unicodeScalars.append(Unicode.Scalar(UInt8(unit)))
    default:
      let digits = String(unit, radix: 16)
      result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
    }
  }
  return result + "\""
}
