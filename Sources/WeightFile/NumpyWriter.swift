/// An element type that NumPy knows, stored as it lies in memory.
package protocol NumpyElement: BitwiseCopyable {
  /// The `descr` of the `.npy` header.
  static var numpyDescription: String { get }
}

extension Float: NumpyElement { package static var numpyDescription: String { "<f4" } }
extension UInt8: NumpyElement { package static var numpyDescription: String { "|u1" } }
extension Int64: NumpyElement { package static var numpyDescription: String { "<i8" } }

/// Writes arrays as `.npy` files, version 1.0, C order.
package enum NumpyWriter {
  /// - Parameters:
  ///   - elements: as many as the product of `shape`, row-major.
  ///   - shape: empty for a scalar.
  package static func write<Element: NumpyElement>(
    _ elements: UnsafeBufferPointer<Element>, shape: [Int], to path: String
  ) throws(OutputFileError) {
    precondition(shape.reduce(1, *) == elements.count, "\(shape) has another number of elements than \(elements.count)")
    let file = try AtomicFile(path: path)
    try file.write(header(Element.numpyDescription, shape))
    try file.write(UnsafeRawBufferPointer(elements))
    try file.commit()
  }

  package static func write<Element: NumpyElement>(
    _ elements: [Element], shape: [Int], to path: String
  ) throws(OutputFileError) {
    try elements.withUnsafeBufferPointer { pointer -> Result<Void, OutputFileError> in
      do throws(OutputFileError) {
        return .success(try write(pointer, shape: shape, to: path))
      } catch {
        return .failure(error)
      }
    }.get()
  }

  /// Magic, version and a Python dictionary, padded with spaces so that the elements start at a multiple of 64.
  private static func header(_ description: String, _ shape: [Int]) -> [UInt8] {
    let dimensions = shape.map { "\($0)" }.joined(separator: ", ") + (shape.count == 1 ? "," : "")
    var dictionary = "{'descr': '\(description)', 'fortran_order': False, 'shape': (\(dimensions)), }"
    let prefixBytes = 10
    let unpadded = prefixBytes + dictionary.utf8.count + 1
    dictionary += String(repeating: " ", count: (64 - unpadded % 64) % 64) + "\n"
    precondition(dictionary.utf8.count <= Int(UInt16.max), "too many dimensions")
    var header: [UInt8] = [0x93] + Array("NUMPY".utf8) + [1, 0]
    header.append(scalar: UInt16(dictionary.utf8.count))
    header += Array(dictionary.utf8)
    return header
  }
}
