/// The largest JSON header accepted; the headers of the largest diffusion models take a hundredth of it.
private let largestHeader = 32 << 20

/// Reads the header of a safetensors file: an unsigned 64-bit length, a JSON dictionary from tensor name to
/// {dtype, shape, data_offsets}, and the elements, which the offsets must cover without overlapping.
func readSafetensors(_ file: MappedFile) throws(CheckpointError) -> Checkpoint {
  var cursor = ByteCursor(file.bytes(0..<file.size))
  guard let length = cursor.count64(), length <= largestHeader else {
    throw .damaged(file: file.path, what: "its header's length is absurd")
  }
  guard let header = cursor.take(length) else {
    throw .truncated(file: file.path, expectedBytes: length + 8, foundBytes: file.size)
  }
  let dictionary = try JSONObject(file: file.path, parsing: header, expected: "the safetensors header")
  let dataStart = length + 8
  var tensors: [String: SourceTensor] = [:]
  var ranges: [Range<Int>] = []
  var entries: [(name: String, entry: SafetensorsEntry)] = []
  // In one order, so that the same file always gives the same error.
  for (name, value) in dictionary.values.sorted(by: { $0.key < $1.key }) where name != "__metadata__" {
    entries.append((name, try SafetensorsEntry(name: name, value: value, file: file.path)))
  }
  let (end, overflow) = (entries.map(\.entry.range.upperBound).max() ?? 0).addingReportingOverflow(dataStart)
  guard !overflow, end <= file.size else {
    throw .truncated(file: file.path, expectedBytes: overflow ? .max : end, foundBytes: file.size)
  }
  for (name, entry) in entries {
    let storage = (entry.range.lowerBound + dataStart)..<(entry.range.upperBound + dataStart)
    guard elementCount(entry.shape)?.multipliedReportingOverflow(by: entry.type.bytes).partialValue == storage.count,
      let tensor = SourceTensor(
        name: name, elementType: entry.type, shape: entry.shape, storage: storage, file: file)
    else {
      throw .damaged(file: file.path, what: "tensor \(name) of shape \(entry.shape) has \(storage.count) bytes")
    }
    tensors[name] = tensor
    ranges.append(storage)
  }
  try checkCoverage(ranges, dataStart: dataStart, file: file)
  return Checkpoint(tensors: tensors, files: [file.source], mappings: [file])
}

/// The format wants the tensors to fill the file to its end and no byte to belong to two of them.
private func checkCoverage(_ ranges: [Range<Int>], dataStart: Int, file: MappedFile) throws(CheckpointError) {
  var end = dataStart
  for range in ranges.sorted(by: { ($0.lowerBound, $0.upperBound) < ($1.lowerBound, $1.upperBound) }) {
    guard range.lowerBound >= end else { throw .damaged(file: file.path, what: "two tensors share bytes") }
    end = range.upperBound
  }
  guard end == file.size else {
    throw .damaged(file: file.path, what: "\(file.size - end) bytes at its end belong to no tensor")
  }
}

private struct SafetensorsEntry {
  let type: ElementType
  let shape: [Int]
  /// Relative to the end of the header.
  let range: Range<Int>

  init(name: String, value: JSONValue, file: String) throws(CheckpointError) {
    guard case .object(let members) = value else {
      throw .damaged(file: file, what: "the header's entry for tensor \(name) is no dictionary")
    }
    let entry = JSONObject(file: file, values: members)
    let offsets = try entry.ints("data_offsets", count: 2)
    guard offsets[0] >= 0, offsets[0] <= offsets[1] else {
      throw .damaged(file: file, what: "tensor \(name) has the data offsets \(offsets)")
    }
    let spelling = try entry.string("dtype")
    guard let type = SafetensorsEntry.types[spelling] else {
      throw .elementType(file: file, tensor: name, found: spelling)
    }
    self.type = type
    shape = try entry.ints("shape")
    range = offsets[0]..<offsets[1]
  }

  private static let types: [String: ElementType] = [
    "F32": .float32, "F16": .float16, "BF16": .bfloat16, "F64": .float64, "I64": .int64, "I32": .int32,
    "I16": .int16, "I8": .int8, "U8": .uint8, "BOOL": .bool,
  ]
}
