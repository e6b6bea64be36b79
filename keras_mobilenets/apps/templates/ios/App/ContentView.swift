import PhotosUI
import SwiftUI

/// Shows what is in a picture that is chosen or taken.
struct ContentView: View {
    @State private var item: PhotosPickerItem?
    @State private var picture: UIImage?
    @State private var answers: [Classifier.Answer] = []
    @State private var status = ""
    @State private var showsCamera = false
    private let classifier = Result { try Classifier() }

    var body: some View {
        VStack(spacing: 16) {
            if let picture {
                Image(uiImage: picture).resizable().scaledToFit().accessibilityLabel("The picture")
            }
            List(answers) { answer in
                LabeledContent(answer.name, value: answer.score, format: .percent.precision(.fractionLength(1)))
            }
            Text(status).font(.footnote).foregroundStyle(.secondary)
            HStack {
                PhotosPicker("Choose a picture", selection: $item, matching: .images)
                if UIImagePickerController.isSourceTypeAvailable(.camera) {
                    Button("Camera") { showsCamera = true }
                }
            }
            .buttonStyle(.bordered)
        }
        .padding()
        .onChange(of: item) { chosen in
            Task {
                guard let data = try? await chosen?.loadTransferable(type: Data.self) else { return }
                look(at: UIImage(data: data))
            }
        }
        .fullScreenCover(isPresented: $showsCamera) {
            Camera { look(at: $0) }.ignoresSafeArea()
        }
    }

    private func look(at taken: UIImage?) {
        guard let taken else {
            status = "This picture cannot be read."
            return
        }
        picture = taken
        do {
            let began = ContinuousClock.now
            answers = try classifier.get().classify(taken)
            status = "\(ContinuousClock.now - began)"
        } catch {
            status = error.localizedDescription
        }
    }
}

/// The system's camera.
struct Camera: UIViewControllerRepresentable {
    let taken: (UIImage?) -> Void
    @Environment(\.dismiss) private var dismiss

    func makeCoordinator() -> Coordinator { Coordinator(self) }

    func makeUIViewController(context: Context) -> UIImagePickerController {
        let controller = UIImagePickerController()
        controller.sourceType = .camera
        controller.delegate = context.coordinator
        return controller
    }

    func updateUIViewController(_ controller: UIImagePickerController, context: Context) {}

    final class Coordinator: NSObject, UIImagePickerControllerDelegate, UINavigationControllerDelegate {
        private let camera: Camera

        init(_ camera: Camera) {
            self.camera = camera
        }

        func imagePickerController(
            _ picker: UIImagePickerController,
            didFinishPickingMediaWithInfo info: [UIImagePickerController.InfoKey: Any]
        ) {
            camera.dismiss()
            camera.taken(info[.originalImage] as? UIImage)
        }

        func imagePickerControllerDidCancel(_ picker: UIImagePickerController) {
            camera.dismiss()
        }
    }
}
